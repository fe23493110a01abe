package explore

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
)

// atomics returns workloads of writes on a filesystem mounted with Options.Atomic. Each write is
// judged as one operation, done or not done. They are the single writes of singles, and writes to
// ranges of mixed content.
func atomics() (list []Workload) {
	for _, workload := range singles() {
		switch {
		case workload.Name == "write-many-pieces" || strings.HasPrefix(workload.Name, "write-overwrite") || strings.Contains(workload.Name, "-at-") || strings.Contains(workload.Name, "-across-"):
			// below
		case strings.HasPrefix(workload.Name, "write-"), strings.HasPrefix(workload.Name, "clone-write"), strings.HasPrefix(workload.Name, "collapse"):
			workload.Name, workload.atomic = "atomic-"+workload.Name, true
			list = append(list, workload)
		}
	}
	over := func(name string, setup func(w *world), path string, off int64, n int) {
		list = append(list, Workload{Name: "atomic-" + name, atomic: true, setup: func(w *world) { tree(w); setup(w) }, op: func(w *world) {
			w.doWrite("write", path, off, fill(200, n))
			w.doWrite("again", path, off, fill(201, n)) // the body of its record replaces that of the first
			w.onOtherThread(func() { w.doWrite("write on another thread", path, off, fill(202, n)) })
		}})
	}
	for n := 1; n <= 7; n++ { // across a word border, too: within a word, any write is atomic
		over(fmt.Sprintf("%d-over-line-border", n), none, "f", 64-int64(n+1)/2, n)
		over(fmt.Sprintf("%d-over-block-border", n), none, "f", 4096-int64(n+1)/2, n)
	}
	over("overwrite", none, "f", 100, 6000)
	folios := func(w *world) {
		w.create("big")
		w.write("big", 0, fill(203, 300000))
		if w.f.Stats().Folios2M+w.f.Stats().Folios1G == 0 {
			panic("no large folio: the workload shows nothing")
		}
	}
	over("block", folios, "big", 8192, 4096)
	over("block-unaligned", folios, "big", 5000, 4096)
	over("in-folio", folios, "big", 33000, 20000)
	over("over-folios", folios, "big", 20000, 100000)
	over("folio", folios, "big", 32768, 32768)
	for n := 1; n <= 7; n++ {
		over(fmt.Sprintf("%d-over-folio-border", n), folios, "big", 32768-int64(n+1)/2, n)
	}
	over("mixed", mixture, "d/mix", 1000, 70000)
	over("mixed-append", mixture, "d/mix", 30001, 90000)
	over("overwrite-and-append", none, "f", 9000, 9000)
	over("full", func(w *world) { folios(w); fillUp(w, 0, true) }, "big", 30000, 20000)
	list[len(list)-1].bare = true
	large := func(name string, setup func(w *world), path string, off int64, n int) {
		list = append(list, Workload{Name: "atomic-" + name, atomic: true, bare: true, setup: func(w *world) { tree(w); setup(w) },
			op: func(w *world) { w.doWrite("write", path, off, fill(200, n)) }})
	}
	large("many-lines", manyLines, "d/many", 100, 248*4096)
	large("fragmented", func(w *world) { unmoved(w); fragmented(w, "frag", 30) }, "frag", 2000, 240000)
	for _, left := range []int64{0, 1, 3} {
		list = append(list, Workload{Name: fmt.Sprintf("atomic-no-space-%d", left), atomic: true, bare: true,
			setup: func(w *world) { tree(w); w.truncate("f", 40000); fillUp(w, left, false) },
			op: func(w *world) {
				w.do("write", func() {
					if !w.noSpace(func() { w.write("f", 5000, fill(204, 30000)) }) {
						panic("there is space: the workload shows nothing")
					}
				})
				w.steps[len(w.steps)-1].full = true
			}})
	}
	return append(list, Workload{Name: "atomic-recovery", atomic: true, setup: notCheckpointed, op: func(w *world) {
		w.do("mount after a crash", w.mount)
		w.onOtherThread(func() {
			w.doWrite("write", "f", 9000, fill(206, 3000))
			w.doWrite("write large", "f", 4096, fill(207, 30000))
		})
	}})
}

// onOtherThread calls op on another thread than the caller's, with another lane, so that no fence
// in op drains lines that the caller's thread left.
func (w *world) onOtherThread(op func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	failed := make(chan any)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() { failed <- recover() }()
		w.ctx.Lane = 1
		op()
		w.ctx.Lane = 0
	}()
	if f := <-failed; f != nil {
		panic(f)
	}
}

func none(*world) {}

// mixture makes the file d/mix of written, unwritten and shared blocks, and holes.
func mixture(w *world) {
	w.write("f", 0, fill(208, 40000))
	w.create("d/mix")
	w.write("d/mix", 0, fill(209, 10000))
	w.clone("f", 4096, "d/mix", 16384, 12288)
	w.fallocate("d/mix", 0, 36864, 12288)
	w.write("d/mix", 45056, fill(210, 5000))
	w.write("d/mix", 60000, fill(211, 30000))
}

// manyLines makes the file d/many of every second block, unwritten. A write to all of the file
// changes more lines than fit a slot of a lane.
func manyLines(w *world) {
	unmoved(w)
	w.create("d/many")
	for i := range int64(125) {
		w.fallocate("d/many", 0, i*8192, 4096)
	}
}

// unmoved uses up the budget of blocks that may be moved for large folios, so that a write is not
// followed by dozens of moves. Other workloads explore moves.
func unmoved(w *world) {
	fragmented(w, "moved", 60)
	w.write("moved", 0, fill(212, 60*8192))
}

// notCheckpointed leaves a crashed filesystem with a logged record, of lines and data, that is
// committed but not checkpointed.
func notCheckpointed(w *world) {
	tree(w)
	w.cut(func() { w.write("f", 9000, fill(205, 9000)) }, func(log []event, i int) bool {
		return log[i].kind == evNT && log[i].n == lineSize && lanes().has(log[i].off)
	})
}

// cut leaves the filesystem as a crash within op would, with all stores up to and including the
// first event for which last returns true.
func (w *world) cut(op func(), last func(log []event, i int) bool) {
	before := append([]byte(nil), w.r.Bytes(0, regionSize)...)
	from := len(w.rec.log)
	op()
	w.crash()
	log := w.rec.log[from:]
	for off := int64(0); off < regionSize; off += lineSize {
		if b := before[off : off+lineSize]; !bytes.Equal(b, w.r.Bytes(off, lineSize)) {
			w.put(off, b)
		}
	}
	for i, e := range log {
		if e.kind == evNT || e.kind == evStore {
			w.put(e.off, e.data)
		}
		if last(log, i) {
			return
		}
	}
	panic("no such moment: the workload shows nothing")
}

// put stores b at byte off of the region, durably.
func (w *world) put(off int64, b []byte) {
	if err := w.r.NTStore(off, b); err != nil {
		panic(err)
	}
	w.r.Fence()
}
