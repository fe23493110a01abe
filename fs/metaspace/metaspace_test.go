package metaspace_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/metaspace"
	"github.com/daxfsd/daxfsd/pmem"
)

// media is a region with a journal, a chunk map and the header of the first metadata chunk. It also
// records what a Space reported to its hooks.
type media struct {
	*testing.T
	r  *pmem.Region
	sb *layout.Superblock
	j  *journal.Journal

	next   uint64 // first block of the next free chunk; 0: none
	freed  []uint64
	bad    map[uint64]bool
	twice  []uint64
	refuse bool
}

func newMedia(t *testing.T) *media {
	t.Helper()
	r, err := pmem.NewMemory(layout.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	m := &media{T: t, r: r, bad: map[uint64]bool{},
		sb: &layout.Superblock{UUID: [16]byte{1}, Size: layout.MinSize, ChunkShift: 15, PUDShift: 18, Lanes: 2}}
	m.sb.Place()
	m.j = journal.New(r, m.sb, false, journal.Hooks{})
	for off := m.sb.ChunkMapOff &^ (layout.BlockSize - 1); off < m.sb.StaticEnd; off += layout.BlockSize {
		m.ok(m.j.FormatBlock(off, nil))
	}
	first := m.sb.FirstChunk()
	line, bit := layout.ChunkMapPos(first)
	x := m.j.Begin(0)
	x.At(m.sb.ChunkMapOff+line*layout.LineSize).SetChunkBit(bit, true)
	m.ok(x.Commit())
	m.ok(m.j.FormatBlock(m.sb.ChunkHeader(first), func(b []byte, seq uint64) {
		var l layout.Line
		l.SetChunkHeader(first)
		layout.PutLine(b, 0, &l, layout.Seed(m.sb.UUID), m.sb.ChunkHeader(first), seq)
	}))
	m.next = uint64(first+1) << (m.sb.ChunkShift - layout.BlockShift)
	return m
}

func (m *media) ok(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// load returns a Space as a mount loads it, and the inode blocks.
func (m *media) load() (*metaspace.Space, []uint64) {
	m.Helper()
	s := metaspace.New(m.j, m.sb, metaspace.Hooks{
		AllocChunk: func(uint32) (uint64, bool) {
			b := m.next
			m.next = 0
			return b, b != 0
		},
		FreeChunk:      func(b uint64) { m.freed = append(m.freed, b) },
		Bad:            func(b uint64) bool { return m.bad[b] },
		BlockFreeTwice: func(b uint64) { m.twice = append(m.twice, b) },
		InodeFreeTwice: func(ino uint64) { m.twice = append(m.twice, ino) },
		MayAlloc:       func() bool { return !m.refuse },
	})
	blocks, err := s.Load(func(block, n uint64) bool { return true })
	m.ok(err)
	return s, blocks
}

// TestBlocks checks that each block is allocated once, from another chunk when the first is full,
// until no chunk is left. An empty chunk becomes data space again, also for the next mount.
func TestBlocks(t *testing.T) {
	media := newMedia(t)
	space, _ := media.load()
	var got []uint64
	for {
		block, err := space.Alloc(0, 0, 0)
		if err != nil {
			if !errors.Is(err, metaspace.ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
		if slices.Contains(got, block) || !space.InUse(block) {
			t.Fatalf("block %d after %v", block, got)
		}
		got = append(got, block)
	}
	if usage := space.Usage(); usage.Chunks != 2 || usage.FreeBlocks != 0 || len(got) < 8 {
		t.Errorf("%+v, %d blocks", usage, len(got))
	}
	chunk := space.Chunks()[1]
	if again, _ := media.load(); !slices.Equal(again.Chunks(), space.Chunks()) {
		t.Errorf("chunks %v in the next mount", again.Chunks())
	}
	for _, block := range got {
		space.Free(0, block)
	}
	if want := uint64(chunk) << (media.sb.ChunkShift - layout.BlockShift); !slices.Equal(media.freed, []uint64{want}) {
		t.Errorf("chunks at %v are free, want %d", media.freed, want)
	}
	if again, _ := media.load(); len(again.Chunks()) != 1 || space.IsChunk(chunk) {
		t.Errorf("chunks %v in the next mount", again.Chunks())
	}
	if n, err := media.j.Pending(); n != 0 || err != nil {
		t.Errorf("%d records could be replayed over the chunk (%v)", n, err)
	}
	space.Free(0, got[0])
	if !slices.Equal(media.twice, got[:1]) {
		t.Errorf("freed twice: %v", media.twice)
	}
}

// TestGoal checks that Alloc returns the goal if it is free, and another block if not.
func TestGoal(t *testing.T) {
	s, _ := newMedia(t).load()
	a, err := s.Alloc(0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.Alloc(0, 0, a+2); b != a+2 || err != nil {
		t.Errorf("block %d, %v, want %d", b, err, a+2)
	}
	if b, err := s.Alloc(0, 0, a); b != a+1 || err != nil {
		t.Errorf("block %d, %v, want %d", b, err, a+1)
	}
}

// TestInodes checks that each inode number is allocated once, that the next mount finds the inode
// blocks, and that an inode block without inodes becomes an ordinary block again.
func TestInodes(t *testing.T) {
	m := newMedia(t)
	s, _ := m.load()
	inos := map[uint64]bool{}
	for range 2 * layout.InodesPerBlock {
		ino, err := s.AllocInode(0, 0)
		if err != nil || inos[ino] || !s.HasInodes(m.sb.InodeOff(ino)) {
			t.Fatalf("inode %d, %v", ino, err)
		}
		inos[ino] = true
	}
	blocks := s.InodeBlocks()
	if _, again := m.load(); !slices.Equal(again, blocks) || len(blocks) != 2 {
		t.Errorf("inode blocks %v in the next mount, want %v", again, blocks)
	}
	if u := s.Usage(); u.Inodes != 2*layout.InodesPerBlock || u.FreeSlots != 0 {
		t.Errorf("%+v", u)
	}
	for ino := range inos {
		s.FreeInode(0, ino)
	}
	if u := s.Usage(); u.Inodes != 0 || u.FreeSlots != 0 || len(s.InodeBlocks()) != 0 {
		t.Errorf("%+v, inode blocks %v", u, s.InodeBlocks())
	}
	if _, again := m.load(); len(again) != 0 {
		t.Errorf("inode blocks %v in the next mount", again)
	}
}

// TestFreeMap checks that Restore restores what Save saved.
func TestFreeMap(t *testing.T) {
	m := newMedia(t)
	s, _ := m.load()
	used, err := s.Alloc(0, 0, 0)
	m.ok(err)
	ino, err := s.AllocInode(0, 0)
	m.ok(err)
	var w layout.FreeMapWriter
	if sum := s.Save(&w); sum != uint64(len(s.Chunks())*m.sb.ChunkBlocks())-uint64(m.sb.StaticEnd>>layout.BlockShift)%uint64(m.sb.ChunkBlocks()) {
		t.Errorf("%d blocks in chunks", sum)
	}
	again, blocks := m.load()
	r := layout.NewFreeMapReader(w.B, m.sb.Blocks())
	if m.ok(again.Restore(r, len(blocks))); !r.Done() {
		t.Error("it was not read to its end")
	}
	if again.Usage() != s.Usage() || !again.InUse(used) {
		t.Errorf("%+v, want %+v", again.Usage(), s.Usage())
	}
	again.FreeInode(0, ino)
	if u := again.Usage(); u.Inodes != 0 {
		t.Errorf("%+v", u)
	}
}

// TestBad checks that a bad block stays used when it is freed, and that no inode is allocated in a
// bad block.
func TestBad(t *testing.T) {
	m := newMedia(t)
	s, _ := m.load()
	b, err := s.Alloc(0, 0, 0)
	m.ok(err)
	m.bad[b] = true
	before := s.Usage().FreeBlocks
	s.Free(0, b)
	if s.Usage().FreeBlocks != before || !s.InUse(b) {
		t.Error("a bad block is free")
	}
	ino, err := s.AllocInode(0, 0)
	m.ok(err)
	block := uint64(m.sb.InodeOff(ino)) >> layout.BlockShift
	m.bad[block] = true
	next, err := s.AllocInode(0, 0)
	m.ok(err)
	if uint64(m.sb.InodeOff(next))>>layout.BlockShift == block {
		t.Errorf("inode %d is in a bad block", next)
	}
}

// TestTidy checks that Tidy frees inode blocks that a crash left empty.
func TestTidy(t *testing.T) {
	m := newMedia(t)
	s, _ := m.load()
	_, err := s.AllocInode(0, 0)
	m.ok(err)
	again, blocks := m.load()
	for _, b := range blocks {
		again.AddInodeBlock(b, 1<<layout.InodesPerBlock-1, 0)
	}
	again.Tidy(0)
	if u := again.Usage(); u.FreeSlots != 0 || len(again.InodeBlocks()) != 0 {
		t.Errorf("%+v, inode blocks %v", u, again.InodeBlocks())
	}
}

// TestNothingFreeAfterFailure checks that nothing is freed after the journal has failed, because
// the transaction that unlinked a block may have been committed.
func TestNothingFreeAfterFailure(t *testing.T) {
	m := newMedia(t)
	s, _ := m.load()
	b, err := s.Alloc(0, 0, 0)
	m.ok(err)
	ino, err := s.AllocInode(0, 0)
	m.ok(err)
	m.j.Fail(errors.New("why"))
	before := s.Usage()
	s.Free(0, b)
	s.FreeInode(0, ino)
	if s.Usage() != before {
		t.Errorf("%+v, want %+v", s.Usage(), before)
	}
	m.refuse = true
	if _, err := s.Alloc(0, 0, 0); err != metaspace.ErrNoSpace {
		t.Errorf("refused: %v", err)
	}
}

// TestDamagedMap checks that a malformed chunk map or header gives ErrDamaged, not a panic.
func TestDamagedMap(t *testing.T) {
	for name, off := range map[string]func(sb *layout.Superblock) int64{
		"map":    func(sb *layout.Superblock) int64 { return sb.ChunkMapOff },
		"header": func(sb *layout.Superblock) int64 { return sb.ChunkHeader(sb.FirstChunk()) },
		"types":  func(sb *layout.Superblock) int64 { return sb.ChunkHeader(sb.FirstChunk()) + layout.LineSize },
	} {
		m := newMedia(t)
		m.ok(m.r.Store(off(m.sb)+16, []byte("8 bytes!")))
		s := metaspace.New(m.j, m.sb, metaspace.Hooks{})
		if _, err := s.Load(func(uint64, uint64) bool { return true }); !errors.Is(err, layout.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
