package fs

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/refcnt"
)

// saveFreeMap writes the free map into free blocks, for the next mount, and returns a reference to
// it for the owner record. If that is not possible the reference is zero, and the next mount reads
// all inodes; this is not an error. Precondition: no lane holds a record.
//
// Persistence order: NT-store the segments, SFENCE. The owner record comes after that.
func (fs *FS) saveFreeMap() (ref layout.FreeMapRef) {
	if fs.bad.Unsaved() {
		// The next mount would not know why bad blocks are in use that the list on media lacks.
		return ref
	}
	if fs.damage.unfinished.Load() || fs.table.Stats().Deferred > 0 {
		// Reading the inodes shows the next mount what is unfinished, and which blocks are free.
		return ref
	}
	b, err := fs.encodeFreeMap()
	if err == nil && len(b) <= layout.FreeMapMax {
		ref, err = fs.writeFreeMap(b)
	}
	if err != nil {
		fs.warn("the free map is not saved: %v", err)
		return layout.FreeMapRef{}
	}
	return ref
}

// foliosOf returns the folio order of each kind of run in a free map.
func (fs *FS) foliosOf() [3]uint8 {
	o := fs.alloc.Orders()
	return [3]uint8{0, o.PMD, o.PUD}
}

// encodeFreeMap returns the free map; more than FreeMapMax bytes mean that it is too large. It
// fails if some block is neither free nor owned nor metadata: then a bug of this program lost it.
func (fs *FS) encodeFreeMap() ([]byte, error) {
	var w layout.FreeMapWriter
	orders := fs.foliosOf()
	sum := fs.alloc.FreeBlocks() + fs.mounted.fixed + fs.bad.OfflineBlocks()
	fs.table.Walk(func(r refcnt.Run) bool {
		x := layout.FreeMapRun{Block: r.Block, N: r.N, Count: r.Owners, Kind: layout.FreeMapMissing}
		if !r.Missing {
			x.Kind = uint8(slices.Index(orders[:], r.Order))
			sum += r.N
		}
		w.Run(x)
		return len(w.B) <= layout.FreeMapMax
	})
	w.End(2)
	sum += fs.meta.Save(&w)
	if len(w.B) <= layout.FreeMapMax && sum != fs.sb.Blocks() {
		return nil, corruptf("%d blocks are free, owned, metadata or offline, but the filesystem has %d", sum, fs.sb.Blocks())
	}
	for _, ino := range fs.defrag.list() {
		if fs.meta.HasInodes(fs.sb.InodeOff(ino)) { // its inode block may have been freed
			w.Ino(ino)
		}
	}
	w.End(1)
	return w.B, nil
}

// writeFreeMap stores a free map in the lowest free blocks. The reference is zero if there are not
// enough.
func (fs *FS) writeFreeMap(b []byte) (ref layout.FreeMapRef, err error) {
	var segs []run
	left := len(b)
	fs.alloc.Walk(func(block, n uint64) bool {
		n = min(n, uint64(left+layout.LineSize+layout.BlockSize-1)>>layout.BlockShift)
		segs = append(segs, run{block, n})
		left -= int(n<<layout.BlockShift) - layout.LineSize
		return left > 0
	})
	if left > 0 {
		return ref, nil
	}
	ref = layout.FreeMapRef{Block: segs[0].block, Len: uint64(len(b)), CRC: layout.Checksum(fs.journal.Seed(), b)}
	b = append(b, make([]byte, -len(b)&(layout.LineSize-1))...)
	segs = append(segs, run{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i, s := range segs[:len(segs)-1] {
		var l layout.Line
		h := layout.FreeMapSegment{Index: uint32(i), Next: segs[i+1].block, Blocks: s.n, Mounts: fs.owner.claim.Mounts()}
		h.Put(&l)
		off := int64(s.block) << layout.BlockShift
		l.Seal(fs.journal.Seed(), off, fs.journal.Seq())
		part := b[:min(len(b), int(s.n<<layout.BlockShift)-layout.LineSize)]
		if err = fs.r.NTStore(off, l[:]); err == nil {
			err = fs.r.NTStore(off+layout.LineSize, part)
		}
		if err != nil {
			fs.bad.FreshFaulted(s.block, s.n, err)
			return layout.FreeMapRef{}, err
		}
		b = b[len(part):]
	}
	fs.r.Fence()
	return ref, nil
}

// readFreeMap returns the bytes of the saved free map.
func (fs *FS) readFreeMap() (b []byte, err error) {
	ref := fs.owner.saved.Map
	if ref.Len > layout.FreeMapMax {
		return nil, corruptf("the saved free map has %d bytes, at most %d are possible", ref.Len, layout.FreeMapMax)
	}
	for i, at := uint32(0), ref.Block; uint64(len(b)) < ref.Len; i++ {
		var l layout.Line
		var h layout.FreeMapSegment
		off := int64(at) << layout.BlockShift
		if at >= fs.sb.Blocks() || off < fs.sb.StaticEnd {
			return nil, corruptf("segment %d of the saved free map is at block %d, outside the filesystem", i, at)
		}
		if err := fs.journal.ReadLine(off, &l); err != nil {
			return nil, err
		}
		if !h.Get(&l) || h.Index != i || h.Mounts != fs.owner.saved.Mounts || h.Blocks == 0 || h.Blocks > fs.sb.Blocks()-at {
			return nil, corruptf("block %d is not segment %d of the saved free map", at, i)
		}
		n := min(h.Blocks<<layout.BlockShift-layout.LineSize, ref.Len-uint64(len(b)))
		b = slices.Grow(b, int(n))[:len(b)+int(n)]
		if err := fs.load(off+layout.LineSize, b[len(b)-int(n):]); err != nil {
			return nil, err
		}
		at = h.Next
	}
	if crc := layout.Checksum(fs.journal.Seed(), b); crc != ref.CRC {
		return nil, corruptf("the checksum of the saved free map is %08x, expected %08x", crc, ref.CRC)
	}
	return b, nil
}

// loadFreeMap does the work of a scan from the saved free map instead of the inodes. After an error
// the caller must replace the allocator, the folio table and all else that it filled.
func (s *scan) loadFreeMap() error {
	fs := s.fs
	data, err := fs.readFreeMap()
	if err != nil {
		return err
	}
	if err := s.structures(); err != nil {
		return err
	}
	reader := layout.NewFreeMapReader(data, fs.sb.Blocks())
	orders := fs.foliosOf()
	ok := fs.alloc.ReserveAll(func() (block, n uint64, ok bool) {
		for saved, ok := reader.Run(); ok && err == nil; saved, ok = reader.Run() {
			run := refcnt.Run{Block: saved.Block, N: saved.N, Owners: saved.Count, Missing: saved.Kind == layout.FreeMapMissing}
			if !run.Missing {
				run.Order = orders[saved.Kind]
			}
			if err = fs.table.Restore(run); err == nil && !run.Missing {
				return saved.Block, saved.N, true
			}
		}
		return 0, 0, false
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNeedsFsck, err)
	}
	if !ok {
		return corruptf("the saved free map lists data blocks that are metadata, listed twice, or outside the region")
	}
	if err := fs.meta.Restore(reader, len(s.todo)); err != nil {
		return err
	}
	for ino, ok := reader.Ino(); ok; ino, ok = reader.Ino() {
		if off := fs.sb.InodeOff(ino); off < 0 || !fs.meta.HasInodes(off) {
			return corruptf("the saved free map lists inode %d, which does not exist", ino)
		}
		fs.defrag.add(ino)
	}
	if !reader.Done() {
		return corruptf("the saved free map ends before or after its last entry")
	}
	return nil
}
