package fsck_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// freeMap is the content of a saved free map.
type freeMap struct {
	runs   []layout.FreeMapRun
	bits   [][]byte
	blocks []uint64
	masks  []uint16
	inos   []uint64
}

func (w *world) owner() (o layout.Owner) {
	w.Helper()
	o, ok, err := fs.ReadOwner(w.R, w.sb)
	if !ok || err != nil {
		w.Fatalf("owner record: %t, %v", ok, err)
	}
	return o
}

// readMap decodes the saved free map, which has one segment.
func (w *world) readMap() (m freeMap) {
	w.Helper()
	o := w.owner()
	b := w.R.Bytes(int64(o.Map.Block)<<layout.BlockShift+layout.LineSize, int64(o.Map.Len))
	r := layout.NewFreeMapReader(b, w.sb.Blocks())
	for x, ok := r.Run(); ok; x, ok = r.Run() {
		m.runs = append(m.runs, x)
	}
	for range w.check(false).MetaChunks {
		m.bits = append(m.bits, bytes.Clone(r.Bits(8)))
	}
	for b, mask, ok := r.Slots(); ok; b, mask, ok = r.Slots() {
		m.blocks, m.masks = append(m.blocks, b), append(m.masks, mask)
	}
	for ino, ok := r.Ino(); ok; ino, ok = r.Ino() {
		m.inos = append(m.inos, ino)
	}
	if !r.Done() || len(m.runs) == 0 || len(m.blocks) == 0 {
		w.Fatalf("not a free map: %x", b)
	}
	return m
}

// writeMap replaces the saved free map by m, with right checksums.
func (w *world) writeMap(m *freeMap, more ...byte) {
	w.Helper()
	var f layout.FreeMapWriter
	for _, r := range m.runs {
		f.Run(r)
	}
	f.End(2)
	for _, b := range m.bits {
		f.Bits(b)
	}
	for i, b := range m.blocks {
		f.Slots(b, m.masks[i])
	}
	f.End(2)
	for _, ino := range m.inos {
		f.Ino(ino)
	}
	f.End(1)
	f.B = append(f.B, more...)
	o := w.owner()
	o.Map.Len, o.Map.CRC = uint64(len(f.B)), layout.Checksum(w.seed, f.B)
	w.Store(int64(o.Map.Block)<<layout.BlockShift+layout.LineSize, f.B)
	w.edit(w.sb.OwnerOff, func(l *layout.Line) { o.Put(l) })
}

// TestFreeMap checks that fsck notices a wrong free map although every checksum is right, and
// repairs it by dropping it.
func TestFreeMap(t *testing.T) {
	for name, harm := range map[string]func(w *world, m *freeMap){
		"a run is missing": func(w *world, m *freeMap) { m.runs = m.runs[1:] },
		"a run is longer":  func(w *world, m *freeMap) { m.runs[len(m.runs)-1].N += 8 },
		"the same number of other blocks": func(w *world, m *freeMap) {
			m.runs[len(m.runs)-1] = layout.FreeMapRun{Block: w.sb.Blocks() - 100, N: m.runs[len(m.runs)-1].N, Count: 1}
		},
		"metadata is data": func(w *world, m *freeMap) {
			m.runs = slices.Insert(m.runs, 0, layout.FreeMapRun{Block: uint64(w.sb.StaticEnd) >> layout.BlockShift, N: 1, Count: 1})
		},
		"the fixed area is data": func(w *world, m *freeMap) {
			m.runs = slices.Insert(m.runs, 0, layout.FreeMapRun{Block: 1, N: 1, Count: 1})
		},
		"another owner": func(w *world, m *freeMap) { m.runs[0].Count++ },
		"an owner less": func(w *world, m *freeMap) {
			i := slices.IndexFunc(m.runs, func(r layout.FreeMapRun) bool { return r.Count == 2 && r.Kind < layout.FreeMapMissing })
			m.runs[i].Count--
			m.runs = slices.DeleteFunc(m.runs, func(r layout.FreeMapRun) bool { return r.Kind == layout.FreeMapMissing })
		},
		"other blocks lack an owner": func(w *world, m *freeMap) {
			i := slices.IndexFunc(m.runs, func(r layout.FreeMapRun) bool { return r.Kind == layout.FreeMapMissing })
			m.runs[i].Block++
		},
		"all owners lack a block": func(w *world, m *freeMap) {
			i := slices.IndexFunc(m.runs, func(r layout.FreeMapRun) bool { return r.Kind == layout.FreeMapMissing })
			m.runs[i].Count = 2
		},
		"a lack outside the folio": func(w *world, m *freeMap) {
			i := slices.IndexFunc(m.runs, func(r layout.FreeMapRun) bool { return r.Kind == layout.FreeMapMissing })
			m.runs[i].N = 8
		},
		"a folio that is not aligned": func(w *world, m *freeMap) {
			i := slices.IndexFunc(m.runs, func(r layout.FreeMapRun) bool { return r.Kind == 0 && (r.Block|r.N)%8 != 0 })
			m.runs[i].Kind = 1
		},
		"a metadata block is free":    func(w *world, m *freeMap) { m.bits[0][0], m.bits[0][1] = 0, 0 },
		"a metadata block is used":    func(w *world, m *freeMap) { m.bits[len(m.bits)-1][0] = 0xff },
		"a free slot is missing":      func(w *world, m *freeMap) { m.masks[0] &= m.masks[0] - 1 },
		"a used slot is free":         func(w *world, m *freeMap) { m.masks[0] = 0xffff },
		"an inode block is missing":   func(w *world, m *freeMap) { m.blocks, m.masks = nil, nil },
		"no inode block":              func(w *world, m *freeMap) { m.blocks[0]++ },
		"an inode block more":         func(w *world, m *freeMap) { m.blocks, m.masks = append(m.blocks, m.blocks[0]+1), append(m.masks, 1) },
		"an inode that cannot be":     func(w *world, m *freeMap) { m.inos = append(m.inos, 4000) },
		"a metadata chunk is missing": func(w *world, m *freeMap) { m.bits = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := build(t)
			w.mounted(func() {
				w.file("/a", 2<<15)
				w.file("/b", 1)
				w.Clone(w.ino["/a"], 0, w.ino["/b"], 0, 2<<15)
				w.write("/b", 3*4096, 4096)
				w.mkdir("/c")
				w.file("/c/d", 1) // the directory needs a second metadata chunk
			})
			m := w.readMap()
			w.writeMap(&m)
			if rep := w.check(false); rep.Left > 0 || !rep.FreeMap {
				t.Fatalf("before: %+v", rep)
			}
			harm(w, &m)
			w.writeMap(&m)
			w.dropped()
		})
	}
}

// dropped checks that fsck reports the free map and nothing else, and that -y drops it.
func (w *world) dropped() {
	w.Helper()
	if rep, err := w.repair(fsck.Options{}); err != nil || len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.FreeMap || !rep.Problems[0].Fixed || !rep.Clean || !rep.FreeMap {
		w.Errorf("%v, %+v", err, rep)
	}
	if rep := w.check(false); len(rep.Problems) > 0 || !rep.Clean || rep.FreeMap {
		w.Errorf("after the repair: %+v", rep)
	}
	w.mounted(func() {
		if w.FS.Stats().FreeMap {
			w.Error("mounted by the free map that was dropped")
		}
	})
	if rep := w.check(false); len(rep.Problems) > 0 || !rep.FreeMap {
		w.Errorf("after a mount: %+v", rep)
	}
}

// TestFreeMapDamage checks that fsck notices a free map that cannot be read.
func TestFreeMapDamage(t *testing.T) {
	ref := func(f func(w *world, r *layout.FreeMapRef)) func(w *world) {
		return func(w *world) {
			o := w.owner()
			f(w, &o.Map)
			w.edit(w.sb.OwnerOff, func(l *layout.Line) { o.Put(l) })
		}
	}
	for name, harm := range map[string]func(w *world){
		"segment":     func(w *world) { w.smash(int64(w.owner().Map.Block) << layout.BlockShift) },
		"bytes":       func(w *world) { w.smash(int64(w.owner().Map.Block)<<layout.BlockShift + layout.LineSize) },
		"more bytes":  func(w *world) { m := w.readMap(); w.writeMap(&m, 0) },
		"place":       ref(func(w *world, r *layout.FreeMapRef) { r.Block++ }),
		"outside":     ref(func(w *world, r *layout.FreeMapRef) { r.Block = 1 << 60 }),
		"metadata":    ref(func(w *world, r *layout.FreeMapRef) { r.Block = uint64(w.sb.InodeBase) >> layout.BlockShift }),
		"length":      ref(func(w *world, r *layout.FreeMapRef) { r.Len = 1 << 20 }),
		"huge length": ref(func(w *world, r *layout.FreeMapRef) { r.Len = 1 << 60 }),
		"no length":   ref(func(w *world, r *layout.FreeMapRef) { r.Len, r.CRC = 0, w.seed }),
		"reaches into data": func(w *world) {
			m := w.readMap()
			o := w.owner()
			w.edit(int64(o.Map.Block)<<layout.BlockShift, func(l *layout.Line) {
				h := layout.FreeMapSegment{Blocks: w.sb.Blocks() - o.Map.Block, Mounts: o.Mounts}
				h.Put(l)
			})
			w.writeMap(&m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := build(t)
			harm(w)
			w.dropped()
		})
	}
}

// TestRepairDropsFreeMap checks that a repair drops the free map first, except one that finds
// nothing or restores only a superblock.
func TestRepairDropsFreeMap(t *testing.T) {
	for name, c := range map[string]struct {
		harm  func(w *world)
		stays bool
	}{
		"nothing":    {func(w *world) {}, true},
		"superblock": {func(w *world) { w.Store(0, make([]byte, 512)) }, true},
		"link count": {func(w *world) { w.core("/f", func(c *layout.Core) { c.Nlink = 9 }) }, false},
		"lost file":  {func(w *world) { w.core("/d/sub", func(c *layout.Core) { c.Mode = 0 }) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := build(t)
			c.harm(w)
			if rep, err := w.repair(fsck.Options{}); err != nil || rep.Left > 0 || (rep.Repaired == 0) != (name == "nothing") {
				t.Fatalf("%v, %+v", err, rep)
			}
			if rep := w.check(false); len(rep.Problems) > 0 || !rep.Clean || rep.FreeMap != c.stays {
				t.Errorf("%+v", rep)
			}
			w.mounted(func() {
				if w.FS.Stats().FreeMap != c.stays {
					t.Errorf("mounted by the free map: %t", !c.stays)
				}
			})
		})
	}
}
