package metaspace

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Load reads the chunk map and the chunk headers, and returns the inode blocks. It is not known yet
// whether the other blocks are free: they count as free until Claim or Restore. reserve takes n
// blocks from block on out of data space, and returns false if some of them are not in it.
func (m *Space) Load(reserve func(block, n uint64) bool) (inodeBlocks []uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var l layout.Line
	for no := int64(0); no < m.sb.Chunks(); no++ {
		line, bit := layout.ChunkMapPos(no)
		if bit == 0 {
			if err := m.j.ReadLine(m.sb.ChunkMapOff+line*layout.LineSize, &l); err != nil {
				return nil, err
			}
		}
		if !l.ChunkBit(bit) {
			continue
		}
		if inodeBlocks, err = m.loadChunkLocked(no, reserve, inodeBlocks); err != nil {
			return nil, err
		}
	}
	if _, c := m.findLocked(m.sb.FirstChunk()); c == nil {
		return nil, layout.Damagedf("the chunk map lacks the first metadata chunk %d", m.sb.FirstChunk())
	}
	return inodeBlocks, nil
}

// loadChunkLocked reads the header of metadata chunk no, adds the chunk, and returns inodeBlocks
// with the chunk's inode blocks appended. Called with mu held.
func (m *Space) loadChunkLocked(no int64, reserve func(block, n uint64) bool, inodeBlocks []uint64) ([]uint64, error) {
	off := m.sb.ChunkHeader(no)
	var l layout.Line
	if err := m.j.ReadLine(off, &l); err != nil {
		return nil, err
	}
	if !l.IsChunkHeader(no) || no < m.sb.FirstChunk() {
		return nil, layout.Damagedf("the header of metadata chunk %d at offset %d is malformed", no, off)
	}
	c := m.newChunk(no)
	start := m.start(c)
	if !reserve(start+uint64(c.first-1), uint64(c.end-c.first+1)) {
		return nil, layout.Damagedf("metadata chunk %d overlaps another structure", no)
	}
	m.addLocked(c)
	for i := c.first; i < c.end; i++ {
		line, b := layout.TypePos(i)
		if b == 0 || i == c.first {
			if err := m.j.ReadLine(off+int64(line)*layout.LineSize, &l); err != nil {
				return nil, err
			}
		}
		switch l.BlockType(b) {
		case layout.BlockOther:
		case layout.BlockInode:
			inodeBlocks = append(inodeBlocks, start+uint64(i))
			m.takeLocked(c, i)
			m.setInodeBlockLocked(start+uint64(i), true)
		default:
			return nil, layout.Damagedf("block %d has the unknown type %d", start+uint64(i), l.BlockType(b))
		}
	}
	return inodeBlocks, nil
}

// AddInodeBlock adds the slots of an inode block that Load returned: free is the mask of its free
// slots, and used the number of its used slots. Free slots of a bad block are not added, because an
// inode in them could not be written.
func (m *Space) AddInodeBlock(block uint64, free uint16, used int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += uint64(used)
	if free != 0 {
		m.addSlotsLocked(block, free)
	}
}

// addSlotsLocked adds the free slots of an inode block, unless the block is bad. Called with mu
// held.
func (m *Space) addSlotsLocked(block uint64, free uint16) {
	if m.hooks.Bad(block) {
		return
	}
	m.inodes[block] = &inodeBlock{free: free}
	m.stack = append(m.stack, block)
	m.slots += uint64(bits.OnesCount16(free))
}

// Save writes to a free map which metadata blocks are used and which inode slots are free, in the
// order in which Restore reads them. sum is the number of blocks in metadata chunks.
func (m *Space) Save(w *layout.FreeMapWriter) (sum uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, c := range m.chunks {
		sum += uint64(c.end - c.first + 1)
		used := make([]byte, len(c.free)*8)
		for i := c.first; i < c.end; i++ {
			if !c.isFree(i) {
				used[i/8] |= 1 << (i % 8)
			}
		}
		w.Bits(used)
	}
	for _, b := range slices.Sorted(maps.Keys(m.inodes)) {
		w.Slots(b, m.inodes[b].free)
	}
	w.End(2)
	return sum
}

// Restore reads what Save wrote. It is called after Load; inodeBlocks is the number of inode blocks
// that Load returned. After an error the Space is unusable.
func (m *Space) Restore(r *layout.FreeMapReader, inodeBlocks int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.chunks {
		used := r.Bits(len(c.free) * 8)
		for i := c.first; i < c.end && used != nil; i++ {
			if used[i/8]&(1<<(i%8)) != 0 && c.isFree(i) {
				m.takeLocked(c, i)
			}
		}
	}
	for block, free, ok := r.Slots(); ok; block, free, ok = r.Slots() {
		if c, i := m.blockLocked(block); c == nil || !c.isInode(i) {
			return layout.Damagedf("the saved free map lists block %d as an inode block, but no chunk header does", block)
		}
		m.addSlotsLocked(block, free)
	}
	m.used = uint64(inodeBlocks)*layout.InodesPerBlock - m.slots
	return nil
}
