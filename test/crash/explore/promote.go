package explore

import (
	"github.com/daxfsd/daxfsd/fs"
)

// scatteredBlocks is the size of the file that scattered makes. The budget of the background
// suffices to collapse its end, but not its beginning.
const scatteredBlocks = 160

// scattered makes scattered, a file whose first blocks lie apart from each other, among those of
// another file.
func scattered(w *world) {
	w.create("scattered")
	w.create("between")
	for b := int64(scatteredBlocks - 1); b >= 0; b-- {
		w.write("scattered", b*4096, fill(int(b), 4096))
		w.write("between", b*8192, fill(130, 100))
	}
}

// promote asks for a grant of n bytes of a file at byte off in pages of a size, and gives it back.
// Something must be moved.
func (w *world) promote(path string, off, n int64, q fs.GrantQuery) {
	f := w.regular(path)
	before := w.f.Stats().MovedBytes
	q.Lo, q.Hi, q.Most, q.Handle = uint64(off)/4096, uint64(off+n)/4096, 1000, 1
	_, _, e := w.f.Direct().Grant(&w.ctx, f.ino, &q)
	must("grant "+path, e)
	w.f.Direct().CloseHandle(1)
	if w.f.Stats().MovedBytes == before && !q.Allocate {
		panic("the grant moves nothing: the workload shows nothing")
	}
}

// promotions returns workloads of grants that ask for large pages.
func promotions() (list []Workload) {
	const pmd, pud = 32 << 10, 256 << 10
	add := func(name string, setup func(w *world), path string, off, n int64, q fs.GrantQuery) {
		list = append(list, Workload{Name: "promote-" + name, direct: true, setup: func(w *world) { tree(w); setup(w) }, op: func(w *world) {
			w.do("grant", func() { w.promote(path, off, n, q) })
		}})
	}
	add("pmd", scattered, "scattered", 0, 2*pmd, fs.GrantQuery{PageSize: pmd})
	add("pud", scattered, "scattered", 0, pud, fs.GrantQuery{PageSize: pud})
	add("shared", func(w *world) {
		scattered(w)
		w.clone("scattered", 4096, "e/h", 0, 3*4096)
	}, "scattered", 0, pmd, fs.GrantQuery{PageSize: pmd, Write: true})
	add("allocate", func(w *world) {
		w.create("e/new")
		w.fallocate("e/new", keep, 20480, 4096)
		w.soil("e/new")
		w.write("e/new", 8192, fill(131, 4096))
		w.truncate("e/new", 70000)
	}, "e/new", 0, 1<<20, fs.GrantQuery{PageSize: pmd, Write: true, Allocate: true})
	return list
}
