package fs

import (
	"maps"
	"math/bits"
	"slices"
	"sort"
	"sync"

	"github.com/daxfs/daxfs/fs/layout"
)

// metaSpace hands out what metadata is made of: single blocks of metadata chunks
// and inode slots within inode blocks. All of it is rebuilt at mount.
//
// A chunk's life: data space -> (header formatted, chunk-map bit set by a
// transaction) -> metadata -> (last block freed, bit cleared, lanes retired) ->
// data space. The lanes are retired because a record that still stands in one
// would otherwise be replayed over a file's data.
//
// A block's life within a chunk: free -> in use by one inode -> free; inode blocks
// are besides listed in the chunk header, so that a mount finds them.
type metaSpace struct {
	mu     sync.RWMutex           // protects everything below; taken before a lane
	chunks []*metaChunk           // sorted by number
	hint   int                    // no chunk before this index has a free block
	inodes map[uint64]*inodeBlock // inode blocks with a free slot
	stack  []uint64               // candidates for the next inode slot; may hold stale entries
	nfree  uint64                 // free blocks in metadata chunks
	slots  uint64                 // free inode slots
	used   uint64                 // inodes in use
}

type metaChunk struct {
	no    int64
	first int // first usable block: behind the fixed area and the header
	end   int // blocks in this chunk (the last one of a region may be short)
	nfree int
	free  []uint64 // bitmap, set: free
	ino   []uint64 // bitmap, set: inode block
}

// inodeBlock is an inode block with at least one free slot.
type inodeBlock struct{ free uint16 }

func (fs *FS) newMetaChunk(no int64) *metaChunk {
	cb := fs.sb.ChunkBlocks()
	c := &metaChunk{no: no, end: cb, free: make([]uint64, (cb+63)/64), ino: make([]uint64, (cb+63)/64)}
	start := uint64(no) << fs.chunkShift()
	if e := fs.sb.Blocks() - start; e < uint64(cb) {
		c.end = int(e)
	}
	if b := uint64(fs.sb.BackupOff) >> layout.BlockShift; b >= start && b < start+uint64(c.end) {
		c.end = int(b - start)
	}
	c.first = int(uint64(fs.sb.ChunkHeader(no))>>layout.BlockShift-start) + 1
	for i := c.first; i < c.end; i++ {
		c.free[i/64] |= 1 << (i % 64)
	}
	c.nfree = c.end - c.first
	return c
}

// chunkShift is log2 of a chunk in blocks.
func (fs *FS) chunkShift() uint { return uint(fs.sb.ChunkShift) - layout.BlockShift }

func (m *metaSpace) add(c *metaChunk) {
	i := sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i].no > c.no })
	m.chunks = append(m.chunks, nil)
	copy(m.chunks[i+1:], m.chunks[i:])
	m.chunks[i] = c
	m.nfree += uint64(c.nfree)
	m.hint = min(m.hint, i)
}

func (m *metaSpace) find(no int64) (int, *metaChunk) {
	i := sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i].no >= no })
	if i < len(m.chunks) && m.chunks[i].no == no {
		return i, m.chunks[i]
	}
	return i, nil
}

func (c *metaChunk) isFree(i int) bool { return c.free[i/64]&(1<<(i%64)) != 0 }

func (c *metaChunk) take(i int) {
	c.free[i/64] &^= 1 << (i % 64)
	c.nfree--
}

// isInodeBlock guards against handles made up by a client: only blocks listed as
// inode blocks hold inodes.
func (fs *FS) isInodeBlock(off int64) bool {
	block := uint64(off >> layout.BlockShift)
	m := &fs.meta
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, c := m.find(int64(block >> fs.chunkShift()))
	i := block & uint64(fs.sb.ChunkBlocks()-1)
	return c != nil && c.ino[i/64]&(1<<(i%64)) != 0
}

// isMeta reports whether a block is one of a metadata chunk that is neither free nor an inode
// block.
func (fs *FS) isMeta(block uint64) bool {
	m := &fs.meta
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, c := m.find(int64(block >> fs.chunkShift()))
	i := int(block & uint64(fs.sb.ChunkBlocks()-1))
	return c != nil && i >= c.first && i < c.end && !c.isFree(i) && c.ino[i/64]&(1<<(i%64)) == 0
}

// setInodeBlock notes that a block holds inodes, or no longer does.
func (fs *FS) setInodeBlock(block uint64, on bool) {
	_, c := fs.meta.find(int64(block >> fs.chunkShift()))
	i := block & uint64(fs.sb.ChunkBlocks()-1)
	if on {
		c.ino[i/64] |= 1 << (i % 64)
	} else {
		c.ino[i/64] &^= 1 << (i % 64)
	}
}

// claimMeta marks a free metadata block used: while mounting, or because it is bad; false if it
// is not a block of a metadata chunk or is used already.
func (fs *FS) claimMeta(block uint64) bool {
	m := &fs.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	_, c := m.find(int64(block >> fs.chunkShift()))
	if c == nil {
		return false
	}
	i := int(block & uint64(fs.sb.ChunkBlocks()-1))
	if !c.isFree(i) {
		return false
	}
	c.take(i)
	m.nfree--
	return true
}

// allocMeta returns a free metadata block, at goal if that is free (0: no goal).
// Its content is undefined: format it before linking it.
func (fs *FS) allocMeta(ctx *Context, goal uint64) (uint64, error) {
	fs.meta.mu.Lock()
	defer fs.meta.mu.Unlock()
	return fs.allocMetaLocked(ctx, goal)
}

func (fs *FS) allocMetaLocked(ctx *Context, goal uint64) (uint64, error) {
	if fs.granted(1) == 0 {
		return 0, errNoSpace
	}
	m := &fs.meta
	if goal != 0 {
		if _, c := m.find(int64(goal >> fs.chunkShift())); c != nil {
			if i := int(goal & uint64(fs.sb.ChunkBlocks()-1)); c.isFree(i) {
				c.take(i)
				m.nfree--
				return goal, nil
			}
		}
	}
	for {
		for ; m.hint < len(m.chunks); m.hint++ {
			c := m.chunks[m.hint]
			if c.nfree == 0 {
				continue
			}
			for w, v := range c.free {
				if v != 0 {
					i := w*64 + bits.TrailingZeros64(v)
					c.take(i)
					m.nfree--
					return uint64(c.no)<<fs.chunkShift() + uint64(i), nil
				}
			}
		}
		if err := fs.addChunkLocked(ctx); err != nil {
			return 0, err
		}
	}
}

// addChunkLocked turns a free chunk of data space into metadata.
//
// Persistence order:
//  1. NT-store the formatted header block, SFENCE
//  2. transaction: set the chunk's bit in the chunk map
func (fs *FS) addChunkLocked(ctx *Context) error {
	if fs.granted(1) == 0 || !fs.mayAddChunk(ctx.UID) {
		return errNoSpace
	}
	defer fs.keepChunks()
	block, ok := fs.alloc.AllocChunk()
	if !ok {
		return errNoSpace
	}
	no := int64(block >> fs.chunkShift())
	if err := fs.writeChunkHeader(no); err != nil {
		fs.freeIdle(block, uint64(fs.sb.ChunkBlocks()))
		return err
	}
	if err := fs.setChunkBit(ctx, no, true); err != nil {
		fs.freeIdle(block, uint64(fs.sb.ChunkBlocks()))
		return err
	}
	fs.meta.add(fs.newMetaChunk(no))
	return nil
}

func (fs *FS) writeChunkHeader(no int64) error {
	off := fs.sb.ChunkHeader(no)
	return fs.journal.FormatBlock(off, func(b []byte, seq uint64) {
		var l layout.Line
		l.SetChunkHeader(no)
		layout.PutLine(b, 0, &l, fs.seed, off, seq)
	})
}

func (fs *FS) setChunkBit(ctx *Context, no int64, on bool) error {
	line, bit := layout.ChunkMapPos(no)
	t := fs.journal.Begin(ctx.Lane)
	t.At(fs.sb.ChunkMapOff+line*layout.LineSize).SetChunkBit(bit, on)
	if !on {
		clear(t.At(fs.sb.ChunkHeader(no)).Payload())
	}
	return t.Commit()
}

// freeMeta gives a metadata block back. Nothing durable may refer to it any more.
// No lane may be held.
func (fs *FS) freeMeta(ctx *Context, block uint64) {
	fs.meta.mu.Lock()
	defer fs.meta.mu.Unlock()
	fs.freeMetaLocked(ctx, block)
}

// freeMetaLocked: when the chunk is empty it becomes data space again.
func (fs *FS) freeMetaLocked(ctx *Context, block uint64) {
	if fs.journal.Failed() {
		return // as freeIdle
	}
	m := &fs.meta
	i, c := m.find(int64(block >> fs.chunkShift()))
	b := int(block & uint64(fs.sb.ChunkBlocks()-1))
	if c == nil || c.isFree(b) {
		if !fs.mounted.fromFreeMap {
			panic("fs: double free of a metadata block")
		}
		fs.doubt(block)
		return
	}
	if fs.bad.Has(block, 1) {
		return // retired: it stays in use, and its chunk metadata
	}
	c.free[b/64] |= 1 << (b % 64)
	c.nfree++
	m.nfree++
	m.hint = min(m.hint, i)
	fs.dropChunk(ctx, i)
}

// dropChunk makes the i-th metadata chunk data space again, if it is empty.
// Called with meta.mu held.
//
// Persistence order:
//  1. transaction: clear the chunk's bit, and its header, so that nothing takes it for
//     metadata again
//  2. retire all lanes, so that no record can be replayed over the chunk
//  3. only then give it to the allocator
//
// If 1 or 2 fails the chunk stays metadata, which is always right.
func (fs *FS) dropChunk(ctx *Context, i int) {
	m := &fs.meta
	c := m.chunks[i]
	if c.nfree < c.end-1 || c.first != 1 || c.end != fs.sb.ChunkBlocks() {
		return
	}
	if fs.setChunkBit(ctx, c.no, false) != nil || fs.journal.Checkpoint() != nil {
		return
	}
	m.chunks = append(m.chunks[:i], m.chunks[i+1:]...)
	m.nfree -= uint64(c.nfree)
	m.hint = min(m.hint, len(m.chunks))
	fs.freeIdle(uint64(c.no)<<fs.chunkShift(), uint64(fs.sb.ChunkBlocks()))
	fs.keepChunks()
}

// allocInode reserves an inode slot. It is in use on media once a transaction
// writes its core line; until then freeInode gives it back.
func (fs *FS) allocInode(ctx *Context) (ino uint64, err error) {
	m := &fs.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	if fs.granted(1) == 0 {
		return 0, errNoSpace
	}
	for {
		for len(m.stack) > 0 {
			block := m.stack[len(m.stack)-1]
			ib := m.inodes[block]
			if ib != nil && fs.bad.Has(block, 1) { // found since it got in here
				m.slots -= uint64(bits.OnesCount16(ib.free))
				delete(m.inodes, block)
				ib = nil
			}
			if ib == nil {
				m.stack = m.stack[:len(m.stack)-1]
				continue
			}
			s := bits.TrailingZeros16(ib.free)
			ib.free &^= 1 << s
			m.slots--
			m.used++
			if ib.free == 0 {
				delete(m.inodes, block)
				m.stack = m.stack[:len(m.stack)-1]
			}
			return fs.sb.InodeAt(int64(block)<<layout.BlockShift + int64(s)*layout.InodeSize), nil
		}
		if err := fs.addInodeBlockLocked(ctx); err != nil {
			return 0, err
		}
	}
}

// addInodeBlockLocked makes a metadata block an inode block.
//
// Persistence order:
//  1. NT-store the formatted block, every slot free and of a generation newer
//     than any that stood here before; SFENCE
//  2. transaction: its type in the chunk header
func (fs *FS) addInodeBlockLocked(ctx *Context) error {
	block, err := fs.allocMetaLocked(ctx, 0)
	if err != nil {
		return err
	}
	off := int64(block) << layout.BlockShift
	err = fs.journal.FormatBlock(off, func(b []byte, seq uint64) {
		for s := 0; s < layout.InodesPerBlock; s++ {
			var l layout.Line
			c := layout.Core{Gen: uint32(seq) | 1}
			c.Put(&l)
			layout.PutLine(b, s*layout.InodeSize/layout.LineSize, &l, fs.seed, off, seq)
		}
	})
	if err == nil {
		err = fs.setBlockType(ctx, block, layout.BlockInode)
	}
	if err != nil {
		fs.freeMetaLocked(ctx, block)
		return err
	}
	fs.setInodeBlock(block, true)
	m := &fs.meta
	m.inodes[block] = &inodeBlock{free: allSlots}
	m.stack = append(m.stack, block)
	m.slots += layout.InodesPerBlock
	return nil
}

func (fs *FS) setBlockType(ctx *Context, block uint64, typ layout.BlockType) error {
	line, i := layout.TypePos(int(block & uint64(fs.sb.ChunkBlocks()-1)))
	t := fs.journal.Begin(ctx.Lane)
	t.At(fs.sb.ChunkHeader(int64(block>>fs.chunkShift()))+int64(line)*layout.LineSize).SetBlockType(i, typ)
	return t.Commit()
}

// freeInode gives an inode slot back whose core line is free on media (or was
// never written). An inode block that becomes empty becomes an ordinary
// metadata block again, except the root's.
func (fs *FS) freeInode(ctx *Context, ino uint64) {
	m := &fs.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	if fs.journal.Failed() {
		return // as freeIdle
	}
	off := fs.sb.InodeOff(ino)
	block := uint64(off >> layout.BlockShift)
	if fs.bad.Has(block, 1) {
		m.used--
		return // as freeSlots
	}
	ib := m.inodes[block]
	if ib == nil {
		ib = &inodeBlock{}
		m.inodes[block] = ib
		m.stack = append(m.stack, block)
	}
	slot := uint16(1) << (off % layout.BlockSize / layout.InodeSize)
	if ib.free&slot != 0 && fs.mounted.fromFreeMap {
		fs.contradiction(corruptf("inode %d was in use, and is free by the saved free map", ino))
		return
	}
	ib.free |= slot
	m.slots++
	m.used--
	if ib.free == allSlots {
		fs.dropInodeBlock(ctx, block)
	}
}

// allSlots: an inode block in which no slot is used.
const allSlots = 1<<layout.InodesPerBlock - 1

// dropInodeBlock makes an inode block without inodes an ordinary metadata block, and free.
// Called with meta.mu held.
//
// Persistence order:
//  1. transaction: its type in the chunk header
//  2. only then is the block free
func (fs *FS) dropInodeBlock(ctx *Context, block uint64) {
	m := &fs.meta
	if fs.setBlockType(ctx, block, layout.BlockOther) != nil {
		return // it stays an inode block, which is always right
	}
	fs.setInodeBlock(block, false)
	delete(m.inodes, block)
	m.slots -= layout.InodesPerBlock
	fs.freeMetaLocked(ctx, block)
}

// tidy gives back the inode blocks and chunks that a crash left empty: it came between what
// emptied them and the transaction that gives them back.
func (fs *FS) tidy(ctx *Context) {
	m := &fs.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, block := range slices.Sorted(maps.Keys(m.inodes)) {
		if m.inodes[block].free == allSlots {
			fs.dropInodeBlock(ctx, block)
		}
	}
	for i := len(m.chunks) - 1; i >= 0; i-- {
		fs.dropChunk(ctx, i)
	}
}
