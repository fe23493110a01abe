package layout

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzFreeMap feeds arbitrary bytes to a reader. It must stop, must return only runs that are
// within the filesystem and in order, and a writer must be able to write the same runs again.
func FuzzFreeMap(f *testing.F) {
	const blocks, chunk = 1 << 20, 8
	var w FreeMapWriter
	w.Run(FreeMapRun{Block: 0, N: 1, Count: 1})
	w.Run(FreeMapRun{Block: 512, N: 512, Count: 3, Kind: 1})
	w.Run(FreeMapRun{Block: 600, N: 7, Count: 2, Kind: FreeMapMissing})
	w.Run(FreeMapRun{Block: 607, N: 1, Count: 1, Kind: FreeMapMissing})
	w.Run(FreeMapRun{Block: 1 << 18, N: 1 << 18, Count: 1, Kind: 2})
	w.Run(FreeMapRun{Block: blocks - 1, N: 1, Count: 1 << 16})
	w.End(2)
	w.Bits([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	w.Slots(9, 0xffff)
	w.Slots(blocks-1, 1)
	w.End(2)
	w.Ino(1)
	w.Ino(blocks*InodesPerBlock - 1)
	w.End(1)
	f.Add(w.B)
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		r := NewFreeMapReader(b, blocks)
		var w FreeMapWriter
		var runs []FreeMapRun
		end := uint64(0)
		for x, ok := r.Run(); ok; x, ok = r.Run() {
			if x.N == 0 || x.N > blocks || x.Block > blocks-x.N || x.Count == 0 || x.Kind != FreeMapMissing && x.Block < end {
				t.Fatalf("%+v after block %d", x, end)
			}
			if x.Kind != FreeMapMissing {
				end = x.Block + x.N
			}
			runs = append(runs, x)
			w.Run(x)
		}
		w.End(2)
		w.Bits(r.Bits(chunk))
		last := uint64(0)
		for block, mask, ok := r.Slots(); ok; block, mask, ok = r.Slots() {
			if block <= last || block >= blocks || mask == 0 {
				t.Fatalf("inode block %d with the free slots %#x, after %d", block, mask, last)
			}
			last = block
			w.Slots(block, mask)
		}
		w.End(2)
		last = 0
		for ino, ok := r.Ino(); ok; ino, ok = r.Ino() {
			if ino <= last || ino >= blocks*InodesPerBlock {
				t.Fatalf("inode %d after %d", ino, last)
			}
			last = ino
			w.Ino(ino)
		}
		w.End(1)
		if !bytes.Equal(in, b) {
			t.Fatal("the reader changes what it reads")
		}
		if !r.Done() {
			return
		}
		again := NewFreeMapReader(w.B, blocks)
		var twice []FreeMapRun
		for x, ok := again.Run(); ok; x, ok = again.Run() {
			twice = append(twice, x)
		}
		if !slices.Equal(runs, twice) {
			t.Fatalf("%+v, written and read again %+v", runs, twice)
		}
	})
}

// TestOwner checks that owner records of all three states read back as they were written.
func TestOwner(t *testing.T) {
	for _, o := range []Owner{
		{Machine: [8]byte{1}, Mount: [8]byte{6, 7}, Boot: [16]byte{2}, PID: 3, State: OwnerMounted, Start: 4, Mounts: 5},
		{State: OwnerClean, Mounts: 5},
		{State: OwnerSaved, Mounts: 5, Map: FreeMapRef{Block: 6, Len: 7, CRC: 8}},
	} {
		var l Line
		var got Owner
		o.Put(&l)
		if got.Get(&l); got != o {
			t.Errorf("%+v, expected %+v", got, o)
		}
	}
}
