package explore

import (
	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// savedMap returns the owner record's reference to the saved free map.
func (w *world) savedMap() layout.FreeMapRef {
	o, ok, err := fs.ReadOwner(w.r, w.super())
	if err != nil || !ok || o.State != layout.OwnerSaved {
		panic(impossible("no free map is saved"))
	}
	return o.Map
}

// doUnmount runs an unmount as a step. When it has returned, the filesystem must be clean.
func (w *world) doUnmount() {
	w.do("unmount", w.unmount)
	w.steps[len(w.steps)-1].clean = true
}

// holes makes two files that share every second block of nearly all free space and leave the other
// blocks free. The saved free map then needs more than one segment.
func holes(w *world) {
	const n = 2900
	w.create("a")
	w.write("a", 0, fill(1, n*4096))
	w.create("c")
	w.clone("a", 0, "c", 0, n*4096)
	data := w.at("a").data
	for off := int64(0); off < n*4096; off += 8192 {
		for _, name := range []string{"a", "c"} {
			must("punch", w.f.Fallocate(&w.ctx, w.at(name).ino, punch, off, 4096))
		}
		clear(data[off : off+4096])
	}
	w.at("c").data = data
}

// freeMaps returns workloads that save, use, overwrite and lack a free map.
func freeMaps() []Workload {
	clean := func(w *world) { tree(w); w.unmount() }
	return []Workload{
		{Name: "free-map", setup: clean, bare: true, op: func(w *world) {
			w.savedMap()
			w.do("mount", w.mount)
			w.do("create", func() { w.create("d/new") })
			w.do("unlink", func() { w.unlink("e/h") })
			w.doUnmount()
			w.do("mount again", w.mount)
		}},
		{Name: "free-map-reused", setup: clean, bare: true, op: func(w *world) {
			for i := range 2 {
				block := w.savedMap().Block
				w.do("mount", w.mount)
				w.do("fallocate", func() { w.fallocate("other", keep, 0, int64(w.f.Stats().AvailableBlocks-4)<<layout.BlockShift) })
				off := int64(-1)
				must("extents", w.f.Extents(&w.ctx, w.at("other").ino, 0, func(extent fs.ExtentInfo) bool {
					if extent.Block <= block && block < extent.Block+extent.Len {
						off = int64(extent.Logical+block-extent.Block) << layout.BlockShift
					}
					return true
				}))
				can(off >= 0, "the blocks of the free map are not used again")
				w.doWrite("write over the free map", "other", off, fill(i, 4096))
				w.truncate("other", 100)
				w.doUnmount()
			}
		}},
		{Name: "free-map-segments", setup: func(w *world) { tree(w); holes(w) }, bare: true, op: func(w *world) {
			w.doUnmount()
			can(w.savedMap().Len > layout.BlockSize, "the free map fits one segment")
			w.do("mount", w.mount)
			w.do("chmod", func() { w.chmod("f", 0o600) })
		}},
		{Name: "free-map-none", setup: func(w *world) { tree(w); fillUp(w, 0, true) }, bare: true, op: func(w *world) {
			w.full = true
			w.doUnmount()
			w.do("mount", w.mount)
			w.do("unlink", func() { w.unlink("d/g") })
			for i := range w.steps {
				w.steps[i].full = true
			}
		}},
	}
}
