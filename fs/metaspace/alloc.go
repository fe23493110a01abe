package metaspace

import (
	"math/bits"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Claim marks a free metadata block as used, while mounting or because the block is bad. It returns
// false if the block is outside the metadata chunks, or is used already.
func (m *Space) Claim(block uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, i := m.blockLocked(block)
	if c == nil || !c.isFree(i) {
		return false
	}
	m.takeLocked(c, i)
	return true
}

// Alloc returns a free metadata block for the user uid, or ErrNoSpace. It returns block goal if
// that is free (0: no goal). The content of the block is undefined: the caller formats the block
// before linking it. If a new chunk is needed, Alloc runs a transaction on the lane.
func (m *Space) Alloc(lane, uid uint32, goal uint64) (block uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.allocLocked(lane, uid, goal)
}

// allocLocked is Alloc, called with mu held.
func (m *Space) allocLocked(lane, uid uint32, goal uint64) (uint64, error) {
	if !m.hooks.MayAlloc() {
		return 0, ErrNoSpace
	}
	if goal != 0 {
		if c, i := m.blockLocked(goal); c != nil && c.isFree(i) {
			m.takeLocked(c, i)
			return goal, nil
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
					m.takeLocked(c, i)
					return m.start(c) + uint64(i), nil
				}
			}
		}
		if err := m.addChunkLocked(lane, uid); err != nil {
			return 0, err
		}
	}
}

// addChunkLocked turns a free chunk of data space into metadata. Called with mu held.
//
// Persistence order:
//  1. NT-store the formatted header block, SFENCE
//  2. transaction: set the chunk's bit in the chunk map
func (m *Space) addChunkLocked(lane, uid uint32) error {
	block, ok := m.hooks.AllocChunk(uid)
	if !ok {
		return ErrNoSpace
	}
	no := int64(block >> m.shift)
	err := m.writeHeader(no)
	if err == nil {
		err = m.setChunkBit(lane, no, true)
	}
	if err != nil {
		m.hooks.FreeChunk(block)
		return err
	}
	m.addLocked(m.newChunk(no))
	return nil
}

// writeHeader is step 1 of addChunkLocked.
func (m *Space) writeHeader(no int64) error {
	off := m.sb.ChunkHeader(no)
	return m.j.FormatBlock(off, func(b []byte, seq uint64) {
		var l layout.Line
		l.SetChunkHeader(no)
		layout.PutLine(b, 0, &l, m.seed, off, seq)
	})
}

// setChunkBit makes chunk no metadata, or no longer metadata, in one transaction. In the latter
// case it also clears the chunk's header.
func (m *Space) setChunkBit(lane uint32, no int64, on bool) error {
	line, bit := layout.ChunkMapPos(no)
	t := m.j.Begin(lane)
	t.At(m.sb.ChunkMapOff+line*layout.LineSize).SetChunkBit(bit, on)
	if !on {
		clear(t.At(m.sb.ChunkHeader(no)).Payload())
	}
	return t.Commit()
}

// Free frees a metadata block. Nothing durable may refer to the block any more, and the caller
// holds no lane. A chunk that becomes empty becomes data space again, by a transaction on the lane.
// A bad block stays used. After the journal has failed, Free does nothing: the transaction that
// unlinked the block may or may not have been committed.
func (m *Space) Free(lane uint32, block uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.freeLocked(lane, block)
}

// freeLocked is Free, called with mu held.
func (m *Space) freeLocked(lane uint32, block uint64) {
	if m.j.Failed() {
		return
	}
	i, c := m.findLocked(int64(block >> m.shift))
	b := int(block & uint64(m.sb.ChunkBlocks()-1))
	if c == nil || c.isFree(b) {
		m.hooks.BlockFreeTwice(block)
		return
	}
	if m.hooks.Bad(block) {
		return // the block stays in use, so its chunk stays metadata
	}
	c.free[b/64] |= 1 << (b % 64)
	c.nfree++
	m.nfree++
	m.hint = min(m.hint, i)
	m.dropChunkLocked(lane, i)
}

// dropChunkLocked makes the metadata chunk with index i data space again, if the chunk is empty.
// Called with mu held.
//
// Persistence order:
//  1. transaction: clear the chunk's bit and its header, so that the chunk cannot be mistaken
//     for metadata
//  2. checkpoint the journal, so that no record can be replayed over the chunk
//  3. only then free the chunk
//
// If step 1 or 2 fails, the chunk stays metadata, which is always correct.
func (m *Space) dropChunkLocked(lane uint32, i int) {
	c := m.chunks[i]
	if c.nfree < c.end-1 || c.no == m.sb.FirstChunk() || c.end != m.sb.ChunkBlocks() {
		return
	}
	if m.setChunkBit(lane, c.no, false) != nil || m.j.Checkpoint() != nil {
		return
	}
	m.chunks = append(m.chunks[:i], m.chunks[i+1:]...)
	m.nfree -= uint64(c.nfree)
	m.hint = min(m.hint, len(m.chunks))
	m.hooks.FreeChunk(m.start(c))
}
