package explore

import (
	"bytes"
	"fmt"
	"runtime"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// grant asks for file blocks [lo, hi) of a file as a program does: it takes the locks, and
// confirms. To the model nothing happens: a grant must show in no byte of any file, whatever it has
// to zero, copy or allocate.
func (w *world) grant(path string, lo, hi uint64, write bool) *lease.Grant {
	n, d := w.regular(path), w.f.Direct()
	g, _, e := d.Grant(&w.ctx, n.ino, &fs.GrantQuery{Lo: lo, Hi: hi, Write: write, Allocate: write, Most: 100, Handle: 1})
	must("grant of "+path, e)
	if g.Lo != lo || g.Hi != hi || write && g.Blocks() != hi-lo {
		panic(fmt.Sprintf("granted are blocks %d to %d of %s, in parts %v, not %d to %d", g.Lo, g.Hi, path, g.Parts, lo, hi))
	}
	w.locks.Use(g, layout.BlockSize, 1)
	must("confirm", d.Confirm(&w.ctx, n.ino, g.ID, g.Generation))
	return g
}

// doGrant is a grant to write as a step.
func (w *world) doGrant(path string, lo, hi uint64) (g *lease.Grant) {
	w.do("grant", func() { g = w.grant(path, lo, hi, true) })
	return g
}

// through stores b at byte off of a file to the blocks of a grant, with one of pmem's primitives.
// It leaves the model as it is.
func (w *world) through(g *lease.Grant, off int64, b []byte, store func(off int64, b []byte) error) {
	for _, p := range g.Parts {
		lo, hi := int64(p.Logical)<<layout.BlockShift, int64(p.Logical+p.N)<<layout.BlockShift
		from, to := max(off, lo), min(off+int64(len(b)), hi)
		if from >= to {
			continue
		}
		if err := store(int64(p.Block)<<layout.BlockShift+from-lo, b[from-off:to-off]); err != nil {
			panic(err)
		}
	}
}

// stored changes the model as a store of b at byte off through a grant does: bytes beyond the end
// of the file are no bytes of the file.
func (n *node) stored(off int64, b []byte) {
	d := bytes.Clone(n.data)
	if off < int64(len(d)) {
		copy(d[off:], b)
	}
	n.data = d
}

// doStore stores through a grant, past the caches, and fences: when it returns it is durable.
func (w *world) doStore(name, path string, g *lease.Grant, off int64, b []byte) {
	w.do(name, func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		w.through(g, off, b, w.r.NTStore)
		w.r.Fence()
		w.regular(path).stored(off, b)
	})
	w.torn(path)
}

// doCached stores through a grant and flushes nothing: until doFlush, each word may be old or new.
func (w *world) doCached(name, path string, g *lease.Grant, off int64, b []byte) {
	w.do(name, func() {
		n := w.regular(path)
		w.through(g, off, b, w.r.Store)
		n.was, n.inflight = n.data, true
		n.stored(off, b)
	})
}

// doFlush flushes what doCached stored, and fences.
func (w *world) doFlush(path string, g *lease.Grant, off int64, n int) {
	w.do("flush", func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		w.through(g, off, make([]byte, n), func(off int64, b []byte) error { return w.r.Flush(off, int64(len(b))) })
		w.r.Fence()
		f := w.regular(path)
		f.was, f.inflight = nil, false
	})
}

// soil stores bytes that no file has to the unwritten blocks of a file, which hold anything. What
// shows them is wrong.
func (w *world) soil(path string) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var dirty []fs.ExtentInfo
	must("extents", w.f.Extents(&w.ctx, w.regular(path).ino, 0, func(x fs.ExtentInfo) bool {
		if x.Unwritten {
			dirty = append(dirty, x)
		}
		return true
	}))
	for _, x := range dirty {
		if err := w.r.NTStore(int64(x.Block)<<layout.BlockShift, bytes.Repeat([]byte("SOIL"), int(x.Len)<<layout.BlockShift/4)); err != nil {
			panic(err)
		}
	}
	w.r.Fence()
}

func (w *world) doCommit(path string, g *lease.Grant) {
	w.do("commit", func() {
		_, _, e := w.f.Direct().Commit(w.regular(path).ino, g.ID, 0, 0)
		must("commit", e)
	})
}

// doEnd ends the lease of a grant, and waits until its blocks may be used again.
func (w *world) doEnd(g *lease.Grant) {
	w.do("end", func() {
		w.locks.Use(g, layout.BlockSize, -1)
		for range 2 {
			if err := w.f.Direct().Sweep(); err != nil {
				panic(err)
			}
			time.Sleep(lease.Quarantine)
		}
		if err := w.f.Direct().Sweep(); err != nil {
			panic(err)
		}
		if n := w.f.Stats().DeferredFrees; n > 0 {
			panic(fmt.Sprintf("%d bytes are still kept for programs", n))
		}
	})
}

// grants returns workloads of programs that map files' own memory. They store with pmem's
// primitives, as the client library does. A crash ends the programs too.
func grants() (list []Workload) {
	unwritten := func(path string, n int64) func(w *world) {
		return func(w *world) {
			w.fallocate(path, 0, 0, n)
			w.soil(path)
		}
	}
	hole := func(path string, lo, hi int64) func(w *world) {
		return func(w *world) {
			w.fallocate(path, 0, lo, hi-lo)
			w.soil(path)
			w.fallocate(path, punch, lo, hi-lo)
		}
	}
	add := func(name string, setup, op func(w *world)) {
		list = append(list, Workload{Name: "grant-" + name, direct: true, setup: func(w *world) { tree(w); setup(w) }, op: op})
	}
	// Grants of blocks in each state, and stores to all of them, flushed and not.
	for _, c := range []struct {
		name, path string
		lo, hi     uint64
		setup      func(w *world)
	}{
		{"written", "f", 0, 3, none},
		{"hole", "f", 1, 10, hole("f", 12288, 40000)},
		{"holes", "frag", 0, 24, func(w *world) { fragmented(w, "frag", 12); w.truncate("frag", 24*4096) }},
		{"unwritten", "e/h", 0, 20, unwritten("e/h", 80000)},
		{"unwritten-middle", "e/h", 3, 9, unwritten("e/h", 80000)},
		{"unwritten-large", "e/h", 0, 256, unwritten("e/h", 1<<20)},
		{"shared", "f", 0, 24, cloned},
		{"shared-copy", "e/h", 2, 20, cloned},
		{"shared-alone", "f", 0, 24, func(w *world) { cloned(w); w.unlink("e/h") }},
		{"mixed", "f", 0, 24, func(w *world) {
			cloned(w)
			w.fallocate("f", punch, 4096, 8192)
			w.fallocate("f", zero, 20480, 8192)
			w.write("f", 40960, fill(121, 4096))
		}},
	} {
		add(c.name, c.setup, func(w *world) {
			g := w.doGrant(c.path, c.lo, c.hi)
			off := int64(c.lo)<<layout.BlockShift + 100
			n := int(c.hi-c.lo)<<layout.BlockShift - 3000
			w.doStore("store", c.path, g, off, fill(130, n))
			w.doCached("store", c.path, g, off+1000, fill(131, 3000))
			w.doFlush(c.path, g, off+1000, 3000)
			w.doCommit(c.path, g)
			w.doCached("store", c.path, g, off+64, fill(132, 300)) // and never flushes it
		})
	}
	// What other programs do on the mount meanwhile.
	add("tail", func(w *world) { w.truncate("f", 9000) }, func(w *world) {
		g := w.doGrant("f", 0, 3)
		w.doStore("store", "f", g, 8192, fill(130, 4096)) // beyond the end, too
		w.do("truncate", func() { w.truncate("f", 11000) })
		w.doStore("store", "f", g, 8192, fill(131, 4096))
		w.doWrite("append", "f", 12000, fill(132, 3000))
	})
	add("punch", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) {
		g := w.doGrant("f", 0, 24)
		w.doStore("store", "f", g, 0, fill(130, 90000))
		w.do("punch", func() { w.fallocate("f", punch, 8192, 16384) })
		w.through(g, 8192, fill(131, 16384), w.r.Store) // to blocks that the file has lost
		w.doWrite("write", "f", 4096, fill(132, 30000))
		w.through(g, 8192, fill(133, 16384), w.r.NTStore)
		w.doEnd(g)
		w.doWrite("write", "e/h", 0, fill(134, 40000)) // over these blocks
	})
	add("zero", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) {
		g := w.doGrant("f", 0, 24)
		w.do("zero-range", func() { w.fallocate("f", zero, 8192, 40960) })
		w.torn("f")
		w.doStore("store", "f", g, 4096, fill(131, 30000))
	})
	add("zero-across", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) {
		g := w.doGrant("f", 0, 12)
		w.do("zero-range", func() { w.fallocate("f", zero, 8192, 81920) })
		w.torn("f")
		w.doStore("store", "f", g, 4096, fill(131, 30000))
	})
	add("truncate", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) {
		g := w.doGrant("f", 0, 24)
		w.doCached("store", "f", g, 0, fill(130, 3000))
		w.doFlush("f", g, 0, 3000)
		w.do("truncate", func() { w.truncate("f", 5000) })
		w.through(g, 8192, fill(131, 40000), w.r.Store)
		w.do("truncate", func() { w.truncate("f", 60000) })
		w.doEnd(g)
		w.doWrite("write", "e/h", 0, fill(134, 90000))
	})
	add("unlink", func(w *world) { w.write("d/g", 0, fill(120, 50000)) }, func(w *world) {
		g := w.doGrant("d/g", 0, 12)
		w.do("unlink", func() { w.unlink("d/g") })
		w.through(g, 0, fill(131, 40000), w.r.Store)
		w.doWrite("write", "e/h", 0, fill(133, 60000))
		w.doEnd(g)
		w.doWrite("append", "e/h", 60000, fill(134, 60000))
	})
	add("clone", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) {
		g := w.doGrant("f", 0, 24)
		w.do("clone", func() { w.clone("f", 0, "e/h", 0, 24*4096) }) // copies
		w.doStore("store", "f", g, 3000, fill(131, 50000))
	})
	add("read", cloned, func(w *world) {
		g := w.grant("e/h", 0, 24, false)
		w.doWrite("write", "e/h", 4096, fill(131, 8192))
		w.do("unlink", func() { w.unlink("e/h") })
		w.doWrite("write", "f", 4096, fill(132, 50000)) // to other blocks: a program maps these
		w.doEnd(g)
		w.doWrite("again", "f", 4096, fill(133, 50000))
	})
	return list
}
