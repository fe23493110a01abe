package metaspace

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// AllocInode reserves an inode slot for the user uid, or returns ErrNoSpace. The slot is in use on
// media once a transaction writes its core line; until then FreeInode gives it back. If a new inode
// block is needed, AllocInode runs a transaction on the lane.
func (m *Space) AllocInode(lane, uid uint32) (ino uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hooks.MayAlloc() {
		return 0, ErrNoSpace
	}
	for {
		for len(m.stack) > 0 {
			block := m.stack[len(m.stack)-1]
			ib := m.inodes[block]
			if ib != nil && m.hooks.Bad(block) { // became bad since it was added
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
			return m.sb.InodeAt(int64(block)<<layout.BlockShift + int64(s)*layout.InodeSize), nil
		}
		if err := m.addInodeBlockLocked(lane, uid); err != nil {
			return 0, err
		}
	}
}

// addInodeBlockLocked makes a metadata block an inode block. Called with mu held.
//
// Persistence order:
//  1. NT-store the formatted block, in which every slot is free and has a newer generation than
//     any inode that was here before; SFENCE
//  2. transaction: set the block's type in the chunk header
func (m *Space) addInodeBlockLocked(lane, uid uint32) error {
	block, err := m.allocLocked(lane, uid, 0)
	if err != nil {
		return err
	}
	off := int64(block) << layout.BlockShift
	err = m.j.FormatBlock(off, func(b []byte, seq uint64) {
		for s := 0; s < layout.InodesPerBlock; s++ {
			var l layout.Line
			c := layout.Core{Gen: uint32(seq) | 1}
			c.Put(&l)
			layout.PutLine(b, s*layout.InodeSize/layout.LineSize, &l, m.seed, off, seq)
		}
	})
	if err == nil {
		err = m.setBlockType(lane, block, layout.BlockInode)
	}
	if err != nil {
		m.freeLocked(lane, block)
		return err
	}
	m.setInodeBlockLocked(block, true)
	m.inodes[block] = &inodeBlock{free: allSlots}
	m.stack = append(m.stack, block)
	m.slots += layout.InodesPerBlock
	return nil
}

// setBlockType sets a block's type in the header of its chunk, in one transaction.
func (m *Space) setBlockType(lane uint32, block uint64, typ layout.BlockType) error {
	line, i := layout.TypePos(int(block & uint64(m.sb.ChunkBlocks()-1)))
	t := m.j.Begin(lane)
	t.At(m.sb.ChunkHeader(int64(block>>m.shift))+int64(line)*layout.LineSize).SetBlockType(i, typ)
	return t.Commit()
}

// FreeInode frees an inode slot whose core line is free on media, or was never written. The caller
// holds no lane. An inode block without inodes becomes an ordinary metadata block, by a transaction
// on the lane, and is freed. A slot in a bad block is not reused.
func (m *Space) FreeInode(lane uint32, ino uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.j.Failed() {
		return // for the same reason as Free
	}
	off := m.sb.InodeOff(ino)
	block := uint64(off >> layout.BlockShift)
	if m.hooks.Bad(block) {
		m.used--
		return // for the same reason as AddInodeBlock
	}
	ib := m.inodes[block]
	if ib == nil {
		ib = &inodeBlock{}
		m.inodes[block] = ib
		m.stack = append(m.stack, block)
	}
	slot := uint16(1) << (off % layout.BlockSize / layout.InodeSize)
	if ib.free&slot != 0 {
		m.hooks.InodeFreeTwice(ino)
		return
	}
	ib.free |= slot
	m.slots++
	m.used--
	if ib.free == allSlots {
		m.dropInodeBlockLocked(lane, block)
	}
}

// dropInodeBlockLocked makes an inode block without inodes an ordinary metadata block, and frees
// it. Called with mu held.
//
// Persistence order:
//  1. transaction: clear the block's type in the chunk header
//  2. only then free the block
func (m *Space) dropInodeBlockLocked(lane uint32, block uint64) {
	if m.setBlockType(lane, block, layout.BlockOther) != nil {
		return // the block stays an inode block, which is always correct
	}
	m.setInodeBlockLocked(block, false)
	delete(m.inodes, block)
	m.slots -= layout.InodesPerBlock
	m.freeLocked(lane, block)
}

// Tidy frees the inode blocks and chunks that a crash left empty: the crash came after they were
// emptied, but before the transaction that frees them.
func (m *Space) Tidy(lane uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, block := range slices.Sorted(maps.Keys(m.inodes)) {
		if m.inodes[block].free == allSlots {
			m.dropInodeBlockLocked(lane, block)
		}
	}
	for i := len(m.chunks) - 1; i >= 0; i-- {
		m.dropChunkLocked(lane, i)
	}
}
