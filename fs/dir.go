package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pagecache"
)

// getDir is get for a directory that is used: it is anchored, and its index is in DRAM. ENOTDIR for
// other inodes; EAGAIN as from extentsLoaded. Called with no lock held.
func (fs *FS) getDir(ctx *Caller, ino uint64) (*inode, syscall.Errno) {
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

// find looks up a name in a directory; the bool reports whether it exists. It allocates no memory.
// Called with in.mu held for reading or writing.
func (fs *FS) find(in *inode, name string) (dirindex.Entry, bool, error) {
	var s dirindex.Search
	off, ok := s.Start(in.dir, name)
	for ok {
		var l layout.Line
		if err := fs.journal.ReadLine(off, &l); err != nil {
			return dirindex.Entry{}, false, err
		}
		off, ok = s.Show(&l)
	}
	e, ok := s.Result()
	if !ok {
		return e, false, fs.absent(in, name)
	}
	return e, true, nil
}

// lostLooked bounds the lost lines that are compared with a name. Beyond that any of them may have
// held the name.
const lostLooked = 1000

// absent returns nil if a name that find did not find cannot be in the directory, and an error if a
// damaged line may have held it.
func (fs *FS) absent(in *inode, name string) error {
	n := in.dir.Lost()
	if n == 0 {
		return nil
	}
	if n > lostLooked {
		return corruptf("directory %d has %d damaged lines, of which one may have held the name %q", in.ino, n, name)
	}
	if off, ok := in.dir.LostLike(name); ok {
		return corruptf("directory %d has a damaged line at offset %d, which may have held the name %q", in.ino, off, name)
	}
	return nil
}

// loadDir builds the index of a directory of size bytes from its blocks. Called with in.io held.
func (fs *FS) loadDir(in *inode, size uint64) error {
	n := size >> layout.BlockShift
	if n > dirindex.MaxBlocks || n > fs.sb.Blocks() {
		return corruptf("directory %d has the impossible size %d", in.ino, size)
	}
	d := dirindex.New(n)
	ok := true
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		if e.Logical+uint64(e.Len) > n {
			ok = false
			return false
		}
		for i := uint64(0); i < uint64(e.Len); i++ {
			d.SetBlock(e.Logical+i, e.Block+i)
		}
		return true
	})
	if !ok {
		return corruptf("directory %d has blocks beyond its size %d", in.ino, size)
	}
	d.Load(fs.journal.Seed(), fs.load, func(x dirindex.Damage) { fs.met(dirDamage(in, x)) })
	in.dir = d
	return nil
}

// dirDamage returns the error that describes damage found in a directory.
func dirDamage(in *inode, x dirindex.Damage) error {
	switch x.Kind {
	case dirindex.Unreadable:
		return corruptf("the block at offset %d of directory %d cannot be read, its names are lost: %v", x.Off, in.ino, x.Err)
	case dirindex.BadLine:
		return corruptf("directory %d has a damaged line at offset %d, the name in it is lost", in.ino, x.Off)
	}
	return corruptf("directory %d has an entry at offset %d that is not whole, its name is lost", in.ino, x.Off)
}

// dirPlace is a place for a new dentry.
type dirPlace struct {
	pos   uint32 // in lines from the start of the directory
	n     int    // number of lines
	block uint64 // a fresh metadata block, which the transaction links at pos; 0: none
	remap *remap // the settled remap that links block; nil: none
}

// placeNameLocked finds n adjacent free lines in the directory, if necessary in a fresh, formatted
// metadata block. It links nothing: change.link does. Called with in.mu held and no lane.
func (fs *FS) placeNameLocked(ctx *Caller, in *inode, n int) (dirPlace, error) {
	if pos, ok := in.dir.Room(n); ok {
		return dirPlace{pos: pos, n: n}, nil
	}
	b, ok := in.dir.NextBlock()
	if !ok {
		return dirPlace{}, errNoSpace
	}
	goal := uint64(0)
	if p, ok := in.space.Prev(uint64(b)); ok && b > 0 {
		goal = p.Block + (uint64(b) - p.Logical)
	}
	block, err := fs.meta.Alloc(ctx.Lane, ctx.UID, goal)
	if err != nil {
		return dirPlace{}, err
	}
	if err := fs.journal.FormatBlock(int64(block)<<layout.BlockShift, nil); err != nil {
		fs.meta.Free(ctx.Lane, block)
		return dirPlace{}, err
	}
	m := fs.newRemapLocked(in, uint64(b))
	m.put(pagecache.Extent{Logical: uint64(b), Block: block, Len: 1})
	m.finish(uint64(b) + 1)
	p := dirPlace{pos: b * layout.LinesPerBlock, n: n, block: block, remap: m}
	if err := m.reserveSlotsLocked(ctx); err != nil {
		fs.undoPlace(ctx, &p)
		return dirPlace{}, err
	}
	return p, nil
}

// undoPlace gives back what placeNameLocked took. Called with no lane held.
func (fs *FS) undoPlace(ctx *Caller, p *dirPlace) {
	if p.block == 0 {
		return
	}
	p.remap.unstage()
	p.remap.end()
	fs.meta.Free(ctx.Lane, p.block)
}

// trimDirLocked frees the directory block of line pos if it is empty now, and all blocks if the
// directory is empty. It follows the transaction that emptied the block; if it fails, the directory
// is merely larger than necessary. Called with in.mu held and no lane.
func (fs *FS) trimDirLocked(ctx *Caller, in *inode, pos uint32) {
	if in.dir.Len() > 0 {
		fs.trimBlockLocked(ctx, in, pos/layout.LinesPerBlock)
		return
	}
	for b := in.dir.Blocks() - 1; b >= 0; b-- {
		fs.trimBlockLocked(ctx, in, uint32(b))
		b = min(b, in.dir.Blocks())
	}
	fs.freeChain(ctx, fs.dropChainLocked(ctx, in))
}

// trimBlockLocked makes directory block b a hole if it is empty, so that the positions of other
// names stay valid. The size shrinks when the last blocks go. Called with in.mu held and no lane.
//
// Persistence order:
//  1. transaction: the block's slot is cut (the extent may split in two), the directory's size
//  2. only then is the block free
func (fs *FS) trimBlockLocked(ctx *Caller, in *inode, b uint32) {
	d := in.dir
	if !d.Idle(b) {
		return
	}
	m, _, err := fs.planLocked(ctx, in, uint64(b), uint64(b)+1, dispPunch)
	if err != nil {
		return
	}
	defer m.end()
	if m.reserveSlotsLocked(ctx) != nil {
		return
	}
	c := fs.begin(ctx)
	u := c.update(in)
	if n := d.BlocksWithout(b); n < d.Blocks() {
		u.Core.Size = uint64(n) << layout.BlockShift
	}
	c.remap(u, m)
	if c.commit() != nil {
		return
	}
	fs.meta.Free(ctx.Lane, d.Unlink(b))
}
