package layout

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzFreeMap feeds arbitrary bytes to a reader. It must stop, must return only runs that are
// within the filesystem and in order, and a writer must be able to write the same runs again.
func FuzzFreeMap(fuzz *testing.F) {
	const blocks, chunk = 1 << 20, 8
	var writer FreeMapWriter
	writer.Run(FreeMapRun{Block: 0, N: 1, Count: 1})
	writer.Run(FreeMapRun{Block: 512, N: 512, Count: 3, Kind: 1})
	writer.Run(FreeMapRun{Block: 600, N: 7, Count: 2, Kind: FreeMapMissing})
	writer.Run(FreeMapRun{Block: 607, N: 1, Count: 1, Kind: FreeMapMissing})
	writer.Run(FreeMapRun{Block: 1 << 18, N: 1 << 18, Count: 1, Kind: 2})
	writer.Run(FreeMapRun{Block: blocks - 1, N: 1, Count: 1 << 16})
	writer.End(2)
	writer.Bits([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	writer.Slots(9, 0xffff)
	writer.Slots(blocks-1, 1)
	writer.End(2)
	writer.Ino(1)
	writer.Ino(blocks*InodesPerBlock - 1)
	writer.End(1)
	fuzz.Add(writer.B)
	fuzz.Add([]byte{0, 0})
	fuzz.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0})
	fuzz.Fuzz(func(t *testing.T, buf []byte) {
		in := bytes.Clone(buf)
		reader := NewFreeMapReader(buf, blocks)
		var writer FreeMapWriter
		var runs []FreeMapRun
		end := uint64(0)
		for run, ok := reader.Run(); ok; run, ok = reader.Run() {
			if run.N == 0 || run.N > blocks || run.Block > blocks-run.N || run.Count == 0 || run.Kind != FreeMapMissing && run.Block < end {
				t.Fatalf("%+v after block %d", run, end)
			}
			if run.Kind != FreeMapMissing {
				end = run.Block + run.N
			}
			runs = append(runs, run)
			writer.Run(run)
		}
		writer.End(2)
		writer.Bits(reader.Bits(chunk))
		last := uint64(0)
		for block, mask, ok := reader.Slots(); ok; block, mask, ok = reader.Slots() {
			if block <= last || block >= blocks || mask == 0 {
				t.Fatalf("inode block %d with the free slots %#x, after %d", block, mask, last)
			}
			last = block
			writer.Slots(block, mask)
		}
		writer.End(2)
		last = 0
		for ino, ok := reader.Ino(); ok; ino, ok = reader.Ino() {
			if ino <= last || ino >= blocks*InodesPerBlock {
				t.Fatalf("inode %d after %d", ino, last)
			}
			last = ino
			writer.Ino(ino)
		}
		writer.End(1)
		if !bytes.Equal(in, buf) {
			t.Fatal("the reader changes what it reads")
		}
		if !reader.Done() {
			return
		}
		again := NewFreeMapReader(writer.B, blocks)
		var twice []FreeMapRun
		for run, ok := again.Run(); ok; run, ok = again.Run() {
			twice = append(twice, run)
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
