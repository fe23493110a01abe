package metaspace

import (
	"errors"
	"sort"
	"sync"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// ErrNoSpace means that no block or inode slot is free, and no chunk can be allocated.
var ErrNoSpace = errors.New("no space left")

// Hooks are the functions that a Space needs from its user. All must be set. They are called with
// Space.mu held.
type Hooks struct {
	// AllocChunk takes a free chunk of data space for metadata of the user uid, and returns its
	// first block.
	AllocChunk func(uid uint32) (block uint64, ok bool)
	// FreeChunk makes the chunk with the given first block data space again.
	FreeChunk func(block uint64)
	// Bad reports whether a block cannot be read.
	Bad func(block uint64) bool
	// BlockFreeTwice and InodeFreeTwice are called with a block or inode that is freed but is free
	// already.
	BlockFreeTwice func(block uint64)
	InodeFreeTwice func(ino uint64)
	// MayAlloc reports whether an allocation may succeed. Tests use it to make space scarce.
	MayAlloc func() bool
}

// Space is the metadata space of a mounted filesystem. Its methods are safe for concurrent use.
type Space struct {
	j     *journal.Journal
	sb    *layout.Superblock
	seed  uint32
	shift uint // log2 of a chunk in blocks
	hooks Hooks

	mu     sync.RWMutex           // protects everything below; taken before a lane
	chunks []*chunk               // sorted by number
	hint   int                    // no chunk below this index has a free block
	inodes map[uint64]*inodeBlock // inode blocks with a free slot, by block number
	stack  []uint64               // block numbers for the next inode slots; may hold stale ones
	nfree  uint64                 // free blocks in metadata chunks
	slots  uint64                 // free inode slots
	used   uint64                 // inodes in use
}

// chunk is a metadata chunk. Block indexes count from its first block.
type chunk struct {
	no    int64
	first int      // index of the first usable block: behind the fixed area and the header
	end   int      // number of blocks; the last chunk of a region may be short
	nfree int      // free blocks
	free  []uint64 // bitmap of free blocks
	ino   []uint64 // bitmap of inode blocks
}

// inodeBlock is an inode block with at least one free slot.
type inodeBlock struct{ free uint16 } // mask of free slots

// allSlots is the mask of free slots of an inode block without inodes.
const allSlots = 1<<layout.InodesPerBlock - 1

// New returns a Space without chunks.
func New(j *journal.Journal, sb *layout.Superblock, hooks Hooks) *Space {
	return &Space{j: j, sb: sb, seed: layout.Seed(sb.UUID), shift: uint(sb.ChunkShift) - layout.BlockShift, hooks: hooks,
		inodes: make(map[uint64]*inodeBlock)}
}

// newChunk returns chunk no, with all usable blocks free. It does not add the chunk to the Space.
func (m *Space) newChunk(no int64) *chunk {
	cb := m.sb.ChunkBlocks()
	c := &chunk{no: no, end: cb, free: make([]uint64, (cb+63)/64), ino: make([]uint64, (cb+63)/64)}
	start := m.start(c)
	if end := uint64(m.sb.DataEnd()) >> layout.BlockShift; end < start+uint64(cb) {
		c.end = int(end - start)
	}
	c.first = int(uint64(m.sb.ChunkHeader(no))>>layout.BlockShift-start) + 1
	for i := c.first; i < c.end; i++ {
		c.free[i/64] |= 1 << (i % 64)
	}
	c.nfree = c.end - c.first
	return c
}

// start returns the first block of a chunk.
func (m *Space) start(c *chunk) uint64 { return uint64(c.no) << m.shift }

// addLocked adds a chunk. Called with mu held.
func (m *Space) addLocked(c *chunk) {
	i := sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i].no > c.no })
	m.chunks = append(m.chunks, nil)
	copy(m.chunks[i+1:], m.chunks[i:])
	m.chunks[i] = c
	m.nfree += uint64(c.nfree)
	m.hint = min(m.hint, i)
}

// findLocked returns chunk no and its index; or nil and the index of the first chunk with a higher
// number. Called with mu held.
func (m *Space) findLocked(no int64) (int, *chunk) {
	i := sort.Search(len(m.chunks), func(i int) bool { return m.chunks[i].no >= no })
	if i < len(m.chunks) && m.chunks[i].no == no {
		return i, m.chunks[i]
	}
	return i, nil
}

// blockLocked returns the chunk of a block and the block's index within it; the chunk is nil if the
// block is not in a metadata chunk. Called with mu held.
func (m *Space) blockLocked(block uint64) (*chunk, int) {
	_, c := m.findLocked(int64(block >> m.shift))
	return c, int(block & uint64(m.sb.ChunkBlocks()-1))
}

func (c *chunk) isFree(i int) bool  { return c.free[i/64]&(1<<(i%64)) != 0 }
func (c *chunk) isInode(i int) bool { return c.ino[i/64]&(1<<(i%64)) != 0 }

// takeLocked marks the free block with index i of a chunk as used. Called with mu held.
func (m *Space) takeLocked(c *chunk, i int) {
	c.free[i/64] &^= 1 << (i % 64)
	c.nfree--
	m.nfree--
}

// setInodeBlockLocked records whether a block holds inodes. Called with mu held.
func (m *Space) setInodeBlockLocked(block uint64, on bool) {
	c, i := m.blockLocked(block)
	if on {
		c.ino[i/64] |= 1 << (i % 64)
	} else {
		c.ino[i/64] &^= 1 << (i % 64)
	}
}

// HasInodes reports whether the block at region offset off holds inodes. It guards against handles
// forged by a client.
func (m *Space) HasInodes(off int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, i := m.blockLocked(uint64(off >> layout.BlockShift))
	return c != nil && c.isInode(i)
}

// InUse reports whether a block of a metadata chunk is neither free nor an inode block. It is false
// for all other blocks.
func (m *Space) InUse(block uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, i := m.blockLocked(block)
	return c != nil && i >= c.first && i < c.end && !c.isFree(i) && !c.isInode(i)
}

// IsChunk reports whether chunk no is a metadata chunk.
func (m *Space) IsChunk(no int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, c := m.findLocked(no)
	return c != nil
}

// Overlaps reports whether one of the n blocks from block on is in a metadata chunk.
func (m *Space) Overlaps(block, n uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, _ := m.findLocked(int64(block >> m.shift))
	return i < len(m.chunks) && m.start(m.chunks[i]) < block+n
}

// Chunks returns the numbers of the metadata chunks, sorted.
func (m *Space) Chunks() []int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	nos := make([]int64, len(m.chunks))
	for i, c := range m.chunks {
		nos[i] = c.no
	}
	return nos
}

// InodeBlocks returns the blocks that hold inodes, sorted.
func (m *Space) InodeBlocks() (blocks []uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, c := range m.chunks {
		for i := c.first; i < c.end; i++ {
			if c.isInode(i) {
				blocks = append(blocks, m.start(c)+uint64(i))
			}
		}
	}
	return blocks
}

// Usage is the amount of used and free space of a Space.
type Usage struct {
	Chunks     int    // metadata chunks
	FreeBlocks uint64 // free blocks in metadata chunks
	FreeSlots  uint64 // free inode slots
	Inodes     uint64 // inodes in use
}

// Usage returns the current figures.
func (m *Space) Usage() Usage {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return Usage{Chunks: len(m.chunks), FreeBlocks: m.nfree, FreeSlots: m.slots, Inodes: m.used}
}
