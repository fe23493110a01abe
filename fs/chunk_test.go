package fs_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// snap copies the region when the first lane slot is cleared: the state that a daemon leaves that
// dies in journal.Checkpoint.
type snap struct {
	v   *volume
	sb  *layout.Superblock
	img []byte
}

func (s *snap) Begin(int)                  {}
func (s *snap) Flush(int, int64, int64)    {}
func (s *snap) Fence(int)                  {}
func (s *snap) NTStore(int, int64, []byte) {}
func (s *snap) Store(_ int, off int64, b []byte) {
	if s.img == nil && off >= s.sb.LaneOff && off < s.sb.LaneOff+int64(s.sb.Lanes)*2*int64(s.sb.LaneSlot) && bytes.Equal(b, make([]byte, len(b))) {
		s.img = bytes.Clone(s.v.R.Bytes(0, s.sb.Size))
	}
}

// TestRecordsOfChunkThatIsData: the daemon dies after the transaction that makes a metadata chunk
// data space, and before the records are checkpointed. After a mount the chunk becomes a file's
// data, and the daemon dies again. The records that remain from the first death must not be
// replayed over the data.
func TestRecordsOfChunkThatIsData(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	const files = 200
	sb := v.Super()
	s := &snap{v: v, sb: sb}
	g := v.Create("/g") // takes all free space, so that the chunk is used again
	for n := int64(fs.MinSize); n >= 4096; n /= 2 {
		for v.FS.Fallocate(&v.Ctx, g, fs.FallocKeepSize, int64(v.blocks(g))<<9, n) == 0 {
		}
	}
	v.Mkdir("/d")
	for i := range files {
		v.Ctx.Lane = uint32(i)
		v.FS.Forget(v.Create(fmt.Sprint("/d/", i)), 1)
	}
	if n := v.FS.Stats().MetaChunks; n < 2 {
		t.Fatalf("%d metadata chunks", n)
	}
	v.R.SetRecorder(s)
	for i := files - 1; i >= 0 && s.img == nil; i-- {
		v.Ctx.Lane = uint32(i)
		v.Unlink(fmt.Sprint("/d/", i))
	}
	v.R.SetRecorder(nil)
	if s.img == nil {
		t.Fatal("no chunk was given back")
	}
	v.Crash()
	put(t, v.R, 0, s.img) // the state that the dead daemon left

	v.Mount()
	t.Logf("%d records replayed", v.FS.Stats().ReplayedRecords)
	v.Ctx.Lane = 0
	f := v.Create("/f")
	v.Fallocate(g, fs.FallocPunchHole|fs.FallocKeepSize, 8<<20, 2*pudBytes)
	var want []byte
	for range 56 { // far from each other, so that they are packed into partial PMD blocks
		b := bytes.Repeat([]byte{0xa5}, 4096)
		v.Write(f, int64(len(want)), b)
		want = append(want, append(b, make([]byte, 4096)...)...)
	}
	want = want[:len(want)-4096]
	if !bytes.Equal(v.Read(f, 0, len(want)), want) {
		t.Fatal("wrong at once")
	}
	lines := map[int64]int{}
	for i := int64(0); i < 2*int64(sb.Lanes); i++ {
		off := sb.LaneOff + i*int64(sb.LaneSlot)
		var h layout.RecordHeader
		if h.Get((*layout.Line)(s.img[off:]), layout.Seed(sb.UUID), off, sb.LaneSlot) {
			for j := 0; j < int(h.N); j++ {
				o := int64(binary.LittleEndian.Uint64(s.img[off+64+8*int64(j):]))
				lines[o>>sb.ChunkShift]++
			}
		}
	}
	t.Log("lines of records by chunk: ", lines, "first chunk", sb.FirstChunk())
	t.Log(v.Extents(f), v.FS.Stats().MetaChunks)
	v.Crash() // the daemon dies again
	v.Mount()
	got := v.Read(f, 0, len(want))
	bad := 0
	for i := 0; i < len(want); i += 64 {
		if !bytes.Equal(got[i:i+64], want[i:i+64]) {
			bad++
		}
	}
	if bad > 0 {
		t.Errorf("%d cache lines of acknowledged file data were overwritten by journal records of a metadata chunk that is no more", bad)
	}
	v.Unmount()
	v.Check()
}
