package fsck

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// owners is a run of n region blocks, at block, with count owners each.
type owners struct{ block, n, count uint64 }

// addOwners appends o to the list if it has more than one owner.
func addOwners(list []owners, o owners) []owners {
	if o.n == 0 || o.count < 2 {
		return list
	}
	if k := len(list) - 1; k >= 0 && list[k].count == o.count && list[k].block+list[k].n == o.block {
		list[k].n += o.n
		return list
	}
	return append(list, o)
}

// sharedBlocks returns the blocks that are in more than one extent.
func (p *pass) sharedBlocks() (list []owners) {
	type edge struct {
		block uint64
		d     uint64 // 1, or -1
	}
	var es []edge
	for _, s := range p.sharers {
		es = append(es, edge{s.block, 1}, edge{s.block + s.n, ^uint64(0)})
	}
	slices.SortFunc(es, func(a, b edge) int { return cmp.Compare(a.block, b.block) })
	at, count := uint64(0), uint64(0)
	for _, e := range es {
		list = addOwners(list, owners{at, e.block - at, count})
		at, count = e.block, count+e.d
	}
	return list
}

// freeMap compares the saved free map with the result of a pass without problems. It returns how
// they differ, or "".
func (p *pass) freeMap() (bad string) {
	b, bad := p.readFreeMap()
	if bad != "" {
		return bad
	}
	r := layout.NewFreeMapReader(b, p.sb.Blocks())
	for _, f := range []func(*layout.FreeMapReader) string{p.mapRuns, p.mapChunks, p.mapInodes} {
		if bad := f(r); bad != "" {
			return bad
		}
	}
	if !r.Done() {
		return "has a wrong length"
	}
	return ""
}

// readFreeMap reads the bytes of the saved free map, or returns why it cannot.
func (p *pass) readFreeMap() (b []byte, bad string) {
	o := p.saved
	if o.Map.Len > layout.FreeMapMax {
		return nil, fmt.Sprintf("has %d bytes, expected at most %d", o.Map.Len, layout.FreeMapMax)
	}
	for i, at := uint32(0), o.Map.Block; uint64(len(b)) < o.Map.Len; i++ {
		var l layout.Line
		var h layout.FreeMapSegment
		off := int64(at) << layout.BlockShift
		if at >= p.sb.Blocks() || p.used.has(at) {
			return nil, fmt.Sprintf("has its segment %d at block %d, which is not free", i, at)
		}
		if err := p.line(off, &l); err != nil || !h.Get(&l) || h.Index != i || h.Mounts != o.Mounts || h.Blocks == 0 || h.Blocks > p.sb.Blocks()-at {
			return nil, fmt.Sprintf("has its segment %d at block %d, which is not that segment", i, at)
		}
		if p.used.hasAny(at, h.Blocks) {
			return nil, fmt.Sprintf("has its segment %d at blocks %d..%d, one of which is not free", i, at, at+h.Blocks-1)
		}
		part := make([]byte, min(h.Blocks<<layout.BlockShift-layout.LineSize, o.Map.Len-uint64(len(b))))
		if err := p.load(off+layout.LineSize, part); err != nil {
			return nil, fmt.Sprintf("cannot be read: %v", err)
		}
		b, at = append(b, part...), h.Next
	}
	if crc := layout.Checksum(p.seed, b); crc != o.Map.CRC {
		return nil, fmt.Sprintf("has the checksum %08x, expected %08x", crc, o.Map.CRC)
	}
	return b, ""
}

// mapRuns compares the data blocks and their numbers of owners.
func (p *pass) mapRuns(r *layout.FreeMapReader) string {
	shift := [3]uint8{0, p.sb.ChunkShift - layout.BlockShift, p.sb.PUDShift - layout.BlockShift}
	var have []owners
	var last layout.FreeMapRun
	var at, sum uint64 // at: have is complete up to this block of the last run
	for x, ok := r.Run(); ok; x, ok = r.Run() {
		if x.Kind == layout.FreeMapMissing {
			if x.Block+x.N > last.Block+last.N || last.Kind == 0 || last.N>>shift[last.Kind] != 1 || x.Count >= last.Count {
				return fmt.Sprintf("has the impossible entry that %d owners do not have blocks %d+%d", x.Count, x.Block, x.N)
			}
			have = addOwners(have, owners{at, x.Block - at, last.Count})
			have = addOwners(have, owners{x.Block, x.N, last.Count - x.Count})
			at = x.Block + x.N
			continue
		}
		have = addOwners(have, owners{at, last.Block + last.N - at, last.Count})
		if (x.Block|x.N)&(1<<shift[x.Kind]-1) != 0 {
			return fmt.Sprintf("has folios of order %d in blocks %d+%d, which are not aligned to it", shift[x.Kind], x.Block, x.N)
		}
		if !p.isData(x.Block, x.N) {
			return fmt.Sprintf("has blocks %d..%d as data, but not all of them are", x.Block, x.Block+x.N-1)
		}
		last, at, sum = x, x.Block, sum+x.N
	}
	have = addOwners(have, owners{at, last.Block + last.N - at, last.Count})
	if sum != p.rep.DataBlocks {
		return fmt.Sprintf("has %d data blocks, expected %d", sum, p.rep.DataBlocks)
	}
	if want := p.sharedBlocks(); !slices.Equal(have, want) {
		return fmt.Sprintf("has other shared blocks than the extents: %d runs, expected %d", len(have), len(want))
	}
	return ""
}

// isData reports whether all blocks of a run are data.
func (p *pass) isData(block, n uint64) bool {
	for ch := p.chunkOf(block); ch <= p.chunkOf(block+n-1); ch++ {
		if p.meta.has(ch) {
			return false
		}
	}
	return p.used.hasAll(block, n) && !p.fixed.hasAny(block, n)
}

// mapChunks compares the metadata blocks in use.
func (p *pass) mapChunks(r *layout.FreeMapReader) string {
	for no := range p.sb.Chunks() {
		if !p.meta.has(uint64(no)) {
			continue
		}
		bits := r.Bits((p.sb.ChunkBlocks() + 63) / 64 * 8)
		if bits == nil {
			return "is too short"
		}
		first, end := p.bounds(no)
		for b := first; b < end; b++ {
			i := b & uint64(p.sb.ChunkBlocks()-1)
			if taken := bits[i/8]&(1<<(i%8)) != 0; taken != p.used.has(b) {
				return fmt.Sprintf("has metadata block %d in use: %t, expected %t", b, taken, !taken)
			}
		}
	}
	return ""
}

// mapInodes compares the free inode slots.
func (p *pass) mapInodes(r *layout.FreeMapReader) string {
	for _, b := range slices.Sorted(slices.Values(p.inodeBlocks)) {
		mask := uint16(0)
		for i := range p.inodes[b] {
			if p.inodes[b][i].state == slotFree {
				mask |= 1 << i
			}
		}
		if mask == 0 || p.bad.has(b) {
			continue
		}
		if have, m, ok := r.Slots(); !ok || have != b || m != mask {
			return fmt.Sprintf("has the free slots %#x in inode block %d, expected %#x in inode block %d", m, have, mask, b)
		}
	}
	if b, _, ok := r.Slots(); ok {
		return fmt.Sprintf("has free slots in inode block %d, expected none", b)
	}
	for ino, ok := r.Ino(); ok; ino, ok = r.Ino() {
		if p.info(ino) == nil {
			return fmt.Sprintf("has inode %d, which does not exist", ino)
		}
	}
	return ""
}
