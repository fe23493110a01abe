package explore

import (
	"github.com/daxfsd/daxfsd/fs/layout"
)

// lacks reports whether a file block may be unreadable, and whether it must be.
func (n *node) lacks(block int64) (may, must bool) {
	now := n.lost[block]
	if !n.inflight {
		return now, now
	}
	return now || n.wasLost[block], now && n.wasLost[block]
}

// heal removes from the lost blocks those for which keep is false. keep is called with each block's
// byte range.
func (n *node) heal(keep func(lo, hi int64) bool) {
	left := map[int64]bool{}
	for b := range n.lost {
		lo := b << layout.BlockShift
		if keep(lo, lo+layout.BlockSize) {
			left[b] = true
		}
	}
	n.lost = left
}

// markBad marks the memory of a file block as bad.
func (w *world) markBad(path string, block int64) {
	n := w.regular(path)
	if err := w.f.MarkBad(n.ino, block<<layout.BlockShift, layout.BlockSize); err != nil {
		panic(err)
	}
	lost := map[int64]bool{block: true}
	for b := range n.lost {
		lost[b] = true
	}
	n.lost = lost
}

// badWorkloads returns workloads on files that have bad memory.
func badWorkloads() []Workload {
	bad := func(path string, blocks ...int64) func(w *world) {
		return func(w *world) {
			for _, b := range blocks {
				w.markBad(path, b)
			}
		}
	}
	return []Workload{
		with("bad-found", none, bad("f", 1)),
		with("bad-found-next", bad("f", 0, 2), bad("f", 1)), // joins two bad ranges
		{Name: "bad-found-unmount", bare: true, setup: func(w *world) { tree(w); bad("f", 0, 2)(w) }, op: func(w *world) {
			w.do("bad-found", func() { w.markBad("f", 1) })
			w.doUnmount()
		}},
		into("bad-overwrite", bad("f", 1), "f", 4096, 4096),
		into("bad-overwrite-end", bad("f", 1, 2), "f", 4000, 6000),
		into("bad-overwrite-all", bad("f", 0, 1), "f", 0, 10000),
		into("bad-append", bad("d/g", 0), "d/g", 0, 9000),
		with("bad-truncate", bad("f", 1), func(w *world) { w.truncate("f", 4096) }),
		with("bad-unlink", bad("d/g", 0), func(w *world) { w.unlink("d/g") }),
		falloc("bad-punch", bad("f", 1), "f", punch, 4096, 4096),
		falloc("bad-zero", bad("f", 1), "f", zero, 4096, 4096),
		{Name: "bad-free-map", bare: true, setup: func(w *world) { tree(w); w.markBad("f", 1); w.markBad("d/g", 0); w.unlink("d/g"); w.unmount() }, op: func(w *world) {
			w.do("mount", w.mount)
			w.doWrite("overwrite", "f", 4096, fill(90, 4096))
			w.doUnmount()
			w.do("mount again", w.mount)
		}},
	}
}
