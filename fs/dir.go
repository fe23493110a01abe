package fs

import (
	"hash/maphash"
	"math/bits"
	"syscall"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pagecache"
)

// dirIndex is a directory in DRAM: where its blocks are, which lines are in use,
// and a hash table from name to line. Names themselves stay on media. A position
// is the number of a line in the directory; it never changes while the entry
// lives, so it serves as readdir's cookie. Protected by the inode's mu.
type dirIndex struct {
	blocks    []uint64 // region block by directory block; 0: hole
	used      []uint64 // lines in use, a bit each, by directory block
	avail     []uint32 // directory blocks with free lines, each once
	listed    []uint32 // by directory block: its index in avail plus 1; 0: full, or a hole
	holes     []uint32 // directory blocks that are holes
	table     nameTable
	lost      []lostLine        // damaged: their names are lost
	lostLines map[uint32]uint64 // of these the lines, a bit each, by directory block
}

var nameSeed = maphash.MakeSeed()

func hashName(name string) uint32 { return uint32(maphash.String(nameSeed, name)) }

func hashBytes(name []byte) uint32 { return uint32(maphash.Bytes(nameSeed, name)) }

// lineOff is the region offset of a position.
func (d *dirIndex) lineOff(pos uint32) int64 {
	return int64(d.blocks[pos/layout.LinesPerBlock])<<layout.BlockShift + int64(pos%layout.LinesPerBlock)*layout.LineSize
}

// dentry is what a name leads to.
type dentry struct {
	pos  uint32
	hash uint32
	n    int // lines
	ino  uint64
	typ  uint8
}

// find looks a name up. It allocates nothing.
func (fs *FS) find(in *inode, name string) (dentry, bool, error) {
	d := in.dir
	h := hashName(name)
	leaf := d.table.leaf(h)
	if leaf == nil {
		return dentry{}, false, fs.absent(in, name)
	}
	for i := h; ; {
		pos, ok := leaf.next(h, &i)
		if !ok {
			return dentry{}, false, fs.absent(in, name)
		}
		var l layout.Line
		if err := fs.loadLine(d.lineOff(pos), &l); err != nil {
			return dentry{}, false, err
		}
		if l.DentryNameLen() != len(name) {
			continue
		}
		e := dentry{pos: pos, hash: h, n: layout.DentryLines(len(name)), ino: l.DentryIno(), typ: l.DentryType()}
		same, err := fs.sameName(d, &e, &l, name)
		if err != nil || same {
			return e, same, err
		}
	}
}

func (fs *FS) sameName(d *dirIndex, e *dentry, l *layout.Line, name string) (bool, error) {
	rest := name
	for i := 0; ; i++ {
		part := l.NamePart(i, len(name))
		if string(part) != rest[:len(part)] {
			return false, nil
		}
		if rest = rest[len(part):]; rest == "" {
			return true, nil
		}
		if err := fs.loadLine(d.lineOff(e.pos)+int64(i+1)*layout.LineSize, l); err != nil {
			return false, err
		}
	}
}

// loadDir builds the index of a directory of size bytes from its blocks.
func (fs *FS) loadDir(in *inode, size uint64) error {
	n := size >> layout.BlockShift
	if n >= 1<<32/layout.LinesPerBlock || n > fs.sb.Blocks() {
		return corruptf("directory %d has the impossible size %d", in.ino, size)
	}
	d := &dirIndex{blocks: make([]uint64, n), used: make([]uint64, n), listed: make([]uint32, n)}
	ok := true
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		if e.Logical+uint64(e.Len) > n {
			ok = false
			return false
		}
		for i := uint64(0); i < uint64(e.Len); i++ {
			d.blocks[e.Logical+i] = e.Block + i
		}
		return true
	})
	if !ok {
		return corruptf("directory %d has blocks beyond its size %d", in.ino, size)
	}
	var buf [layout.BlockSize]byte
	var name [layout.NameMax]byte
	for b := int(n) - 1; b >= 0; b-- {
		if d.blocks[b] == 0 {
			d.holes = append(d.holes, uint32(b))
			continue
		}
		off := int64(d.blocks[b]) << layout.BlockShift
		if err := fs.load(off, buf[:]); err != nil {
			fs.met(corruptf("the block at offset %d of directory %d cannot be read, its names are lost: %v", off, in.ino, err))
			d.lose(b, 0, layout.LinesPerBlock, nil)
			continue
		}
		valid := func(i int) bool {
			return (*layout.Line)(buf[i*layout.LineSize:]).Valid(fs.seed, off+int64(i)*layout.LineSize)
		}
		for i := 0; i < layout.LinesPerBlock; {
			l := (*layout.Line)(buf[i*layout.LineSize:])
			if !valid(i) {
				fs.met(corruptf("directory %d has a damaged line at offset %d, the name in it is lost", in.ino, off+int64(i)*layout.LineSize))
				d.lose(b, i, 1, l)
				i++
				continue
			}
			if l.DentryKind() != layout.DentryHead {
				i++
				continue
			}
			nl := l.DentryNameLen()
			k := layout.DentryLines(nl)
			whole, n := nl != 0 && i+k <= layout.LinesPerBlock, 1 // n: lines of the entry, as far as they can be its
			for ; n < k && i+n < layout.LinesPerBlock; n++ {
				if sound := valid(i + n); !sound {
					whole = false
				} else if (*layout.Line)(buf[(i+n)*layout.LineSize:]).DentryKind() != layout.DentryCont {
					whole = false
					break
				}
			}
			if !whole {
				fs.met(corruptf("directory %d has an entry at offset %d that is not whole, its name is lost", in.ino, off+int64(i)*layout.LineSize))
				d.lose(b, i, n, l)
				i += n
				continue
			}
			nm := name[:0]
			for j := 0; j < k; j++ {
				nm = append(nm, (*layout.Line)(buf[(i+j)*layout.LineSize:]).NamePart(j, nl)...)
			}
			d.used[b] |= lineMask(i, k)
			d.table.insert(hashBytes(nm), uint32(b*layout.LinesPerBlock+i))
			i += k
		}
		d.relist(uint32(b))
	}
	in.dir = d
	return nil
}

// lineMask is the bits of n lines from line i on.
func lineMask(i, n int) uint64 { return (1<<n - 1) << i }

// freeLines finds n adjacent free lines in a used mask, or -1.
func freeLines(used uint64, n int) int {
	f := ^used // the shifts bring in zeros: no run leaves the block
	for k := 1; k < n; k++ {
		f &= ^used >> k
	}
	if f == 0 {
		return -1
	}
	return bits.TrailingZeros64(f)
}

// dirPlace is a place found for a new dentry.
type dirPlace struct {
	pos   uint32
	n     int
	block uint64 // != 0: a fresh block that the transaction links as directory block pos/64
}

// placeName finds n adjacent free lines in the directory, in a fresh, formatted
// metadata block if need be. Nothing is linked yet: stagePlace does that. Called
// with mu held and no lane.
func (fs *FS) placeName(ctx *Context, in *inode, n int) (dirPlace, error) {
	d := in.dir
	for i := len(d.avail) - 1; i >= 0 && i >= len(d.avail)-8; i-- {
		b := d.avail[i]
		if l := freeLines(d.used[b], n); l >= 0 {
			return dirPlace{pos: b*layout.LinesPerBlock + uint32(l), n: n}, nil
		}
	}
	b := uint32(len(d.blocks))
	if len(d.holes) > 0 {
		b = d.holes[len(d.holes)-1]
	} else if b == 1<<32/layout.LinesPerBlock-1 {
		return dirPlace{}, errNoSpace
	}
	if err := fs.needSlots(ctx, in, 1); err != nil {
		return dirPlace{}, err
	}
	goal := uint64(0)
	if p, ok := in.space.Prev(uint64(b)); ok && b > 0 {
		goal = p.Block + (uint64(b) - p.Logical)
	}
	block, err := fs.allocMeta(ctx, goal)
	if err != nil {
		return dirPlace{}, err
	}
	if err := fs.formatBlock(int64(block)<<layout.BlockShift, nil); err != nil {
		fs.freeMeta(ctx, block)
		return dirPlace{}, err
	}
	return dirPlace{pos: b * layout.LinesPerBlock, n: n, block: block}, nil
}

// dirChange is one directory's part of a transaction, to be applied after commit.
type dirChange struct {
	p    dirPlace
	hash uint32
}

// stageDentry writes a new dentry at p, linking p's fresh block if it has one. c is
// the directory's new core, which the caller stages.
func (in *inode) stageDentry(t *tx, p dirPlace, name string, ino uint64, typ uint8, c *layout.Core) (ch dirChange) {
	ch = dirChange{p: p, hash: hashName(name)}
	off := int64(0)
	if p.block != 0 {
		b := uint64(p.pos / layout.LinesPerBlock)
		s := &in.ext.splice
		s.begin(in, b)
		s.put(pagecache.Extent{Logical: b, Block: p.block, Len: 1})
		s.finish(in, b+1)
		s.settle()
		in.stageSplice(t)
		if size := (b + 1) << layout.BlockShift; size > c.Size {
			c.Size = size
		}
		off = int64(p.block)<<layout.BlockShift + int64(p.pos%layout.LinesPerBlock)*layout.LineSize
	} else {
		off = in.dir.lineOff(p.pos)
	}
	nm := []byte(name)
	t.at(off).PutDentryHead(nm, ino, typ)
	for i := 1; i < p.n; i++ {
		t.at(off+int64(i)*layout.LineSize).PutDentryCont(nm, i)
	}
	return ch
}

// applyDentry makes a committed stageDentry current in DRAM.
func (in *inode) applyDentry(ch *dirChange) {
	d := in.dir
	b := ch.p.pos / layout.LinesPerBlock
	if ch.p.block != 0 {
		in.applySplice()
		if int(b) == len(d.blocks) {
			d.blocks, d.used, d.listed = append(d.blocks, 0), append(d.used, 0), append(d.listed, 0)
		} else {
			d.holes = d.holes[:len(d.holes)-1]
		}
		d.blocks[b], d.used[b] = ch.p.block, 0
	}
	d.used[b] |= lineMask(int(ch.p.pos%layout.LinesPerBlock), ch.p.n)
	d.relist(b)
	d.table.insert(ch.hash, ch.p.pos)
}

// undoDentry gives back what placeName and stageDentry took. No lane may be held.
func (fs *FS) undoDentry(ctx *Context, in *inode, p dirPlace, ch *dirChange) {
	if p.block == 0 {
		return
	}
	if ch != nil {
		in.dropSplice()
	}
	fs.freeMeta(ctx, p.block)
}

// stageRemove clears a dentry's lines.
func (in *inode) stageRemove(t *tx, e dentry) {
	off := in.dir.lineOff(e.pos)
	for i := 0; i < e.n; i++ {
		t.at(off + int64(i)*layout.LineSize).ClearDentry()
	}
}

// applyRemove makes a committed stageRemove current in DRAM.
func (in *inode) applyRemove(e dentry) {
	d := in.dir
	b := e.pos / layout.LinesPerBlock
	d.used[b] &^= lineMask(int(e.pos%layout.LinesPerBlock), e.n)
	d.relist(b)
	d.table.remove(e.hash, e.pos)
}

// trimDir gives back the directory block of a position if it became empty, and all
// blocks if the directory did. It comes after the transaction that emptied the
// block: if it does not happen the directory is merely larger than it need be.
// Called with mu held and no lane.
func (fs *FS) trimDir(ctx *Context, in *inode, pos uint32) {
	if in.dir.table.count > 0 {
		fs.trimBlock(ctx, in, pos/layout.LinesPerBlock)
		return
	}
	for b := len(in.dir.blocks) - 1; b >= 0; b-- {
		fs.trimBlock(ctx, in, uint32(b))
		b = min(b, len(in.dir.blocks))
	}
	fs.freeChain(ctx, fs.dropChainLocked(ctx, in))
}

// trimBlock makes an empty directory block a hole, so that positions hold; the size
// shrinks when the last blocks go.
//
// Persistence order:
//  1. transaction: the block's slot cut (it may split in two), the directory's size
//  2. only then is the block free
func (fs *FS) trimBlock(ctx *Context, in *inode, b uint32) {
	d := in.dir
	if d.used[b] != 0 || d.blocks[b] == 0 {
		return
	}
	if _, err := fs.plan(ctx, in, uint64(b), uint64(b)+1, fatePunch); err != nil {
		return
	}
	if fs.needSlots(ctx, in, in.ext.splice.settle()) != nil {
		return
	}
	c := in.core
	n := len(d.blocks)
	if int(b) == n-1 {
		for n--; n > 0 && d.blocks[n-1] == 0; n-- {
		}
		c.Size = uint64(n) << layout.BlockShift
	}
	t := fs.begin(ctx)
	in.stageSplice(t)
	if c != in.core {
		in.stageCore(t, &c)
	}
	if err := t.commit(); err != nil {
		in.dropSplice()
		return
	}
	in.applyCore(&c)
	in.applySplice()
	block := d.blocks[b]
	d.blocks[b] = 0
	d.relist(b)
	if n < len(d.blocks) {
		d.shrink(n)
	} else {
		d.holes = append(d.holes, b)
	}
	fs.freeMeta(ctx, block)
}

// Dirent is one entry that ReadDir hands out. Name is valid during the call only.
type Dirent struct {
	Ino  uint64
	Type uint8 // DT_*
	Name []byte
	Next uint64 // the cookie that resumes behind this entry
	dir  *inode // whose entry it is
}

// firstCookie is the cookie of position 0: "." and ".." stand before it.
const firstCookie = 2

// ReadDir calls emit for the entries of a directory from the cookie on (0: from the
// start), "." and ".." first, until emit says false. Cookies hold across changes of
// the directory and across mounts.
func (fs *FS) ReadDir(ctx *Context, ino, cookie uint64, emit func(*Dirent) bool) syscall.Errno {
	in, e := fs.getDir(ctx, ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	fs.accessed(ctx, in)
	if cookie == 0 && !emit(&Dirent{dir: in, Ino: in.ino, Type: syscall.DT_DIR, Name: []byte("."), Next: 1}) {
		return 0
	}
	if cookie <= 1 && !emit(&Dirent{dir: in, Ino: in.parent.Load(), Type: syscall.DT_DIR, Name: []byte(".."), Next: firstCookie}) {
		return 0
	}
	b := fs.dirBatches.Get().(*dirBatch)
	defer func() {
		clear(b.ents[:]) // they would keep the directory in memory
		fs.dirBatches.Put(b)
	}()
	told := false
	for cookie = max(cookie, firstCookie); ; cookie = b.ents[b.n-1].Next {
		b.n, b.names = 0, b.names[:0]
		in.mu.RLock()
		err := fs.readDir(in, cookie-firstCookie, b.add)
		in.mu.RUnlock()
		for i := range b.ents[:b.n] {
			if !emit(&b.ents[i]) {
				return 0
			}
			told = true
		}
		if err != nil && told { // what was told counts; the next call has the error
			return 0
		}
		if err != nil || b.n == 0 {
			return errno(err)
		}
	}
}

// dirBatch is some entries of a directory, copied so that emit is called without the directory's lock: it
// looks the children up, and a lock of theirs comes after that of the directory that they are in, which on
// damaged media need not be this one.
type dirBatch struct {
	ents  [32]Dirent
	n     int
	names []byte // what the entries' names are slices of; its capacity suffices for all
}

func newDirBatch() *dirBatch {
	return &dirBatch{names: make([]byte, 0, len(dirBatch{}.ents)*layout.NameMax)}
}

// add takes a copy of e, and is false when the batch is full.
func (b *dirBatch) add(e *Dirent) bool {
	at := len(b.names)
	b.names = append(b.names, e.Name...)
	b.ents[b.n] = *e
	b.ents[b.n].Name = b.names[at:len(b.names):len(b.names)]
	b.n++
	return b.n < len(b.ents)
}

func (fs *FS) readDir(in *inode, pos uint64, emit func(*Dirent) bool) error {
	d := in.dir
	var l layout.Line
	var name [layout.NameMax]byte
	for b := pos / layout.LinesPerBlock; b < uint64(len(d.blocks)); b, pos = b+1, (b+1)*layout.LinesPerBlock {
		used := d.used[b] &^ d.lostLines[uint32(b)] &^ lineMask(0, int(pos%layout.LinesPerBlock))
		off := int64(d.blocks[b]) << layout.BlockShift
		for used != 0 {
			i := bits.TrailingZeros64(used)
			if err := fs.loadLine(off+int64(i)*layout.LineSize, &l); err != nil {
				return err
			}
			if l.DentryKind() != layout.DentryHead {
				used &^= lineMask(i, 1) // a cookie that pointed into a dentry
				continue
			}
			nl, n := l.DentryNameLen(), layout.DentryLines(l.DentryNameLen())
			e := Dirent{dir: in, Ino: l.DentryIno(), Type: l.DentryType(), Next: b*layout.LinesPerBlock + uint64(i+n) + firstCookie}
			nm := append(name[:0], l.NamePart(0, nl)...)
			for j := 1; j < n; j++ {
				if err := fs.loadLine(off+int64(i+j)*layout.LineSize, &l); err != nil {
					return err
				}
				nm = append(nm, l.NamePart(j, nl)...)
			}
			e.Name = nm
			if !emit(&e) {
				return nil
			}
			used &^= lineMask(i, n)
		}
	}
	return nil
}

// getDir is get for directories, with the index in DRAM. EAGAIN as extentsLoaded.
func (fs *FS) getDir(ctx *Context, ino uint64) (*inode, syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return nil, e
	}
	if !in.isDir() {
		fs.put(in, 1)
		return nil, syscall.ENOTDIR
	}
	err := fs.anchor(ctx, in)
	if err == nil {
		err = fs.extentsLoaded(ctx, in)
	}
	if err != nil {
		fs.put(in, 1)
		return nil, errno(err)
	}
	return in, 0
}
