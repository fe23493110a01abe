package explore

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
)

// turns decides, by seed, which of two threads executes its next primitive. A thread that does not
// reach a primitive within patience after its turn came (it may wait for a lock of the other
// thread) loses the turn.
type turns struct {
	mu    sync.Mutex
	rnd   rnd
	tids  [2]int // thread ids
	ended [2]bool
	turn  int           // index of the thread whose turn it is; protected by mu
	moved chan struct{} // closed and replaced when turn or ended changes
}

// patience is the time after which a waiting thread takes the turn from one that does not use it.
const patience = 2 * time.Millisecond

// index returns which of the two threads has the id tid; -1 for other threads.
func (t *turns) index(tid int) int {
	for i, id := range t.tids {
		if id == tid {
			return i
		}
	}
	return -1
}

// wait returns when it is the turn of thread tid. It returns at once for other threads.
func (t *turns) wait(tid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	me := t.index(tid)
	if me < 0 {
		return
	}
	for t.turn != me && !t.ended[1-me] {
		moved := t.moved
		t.mu.Unlock()
		timer := time.NewTimer(patience)
		select {
		case <-moved:
		case <-timer.C:
			t.mu.Lock()
			t.giveLocked(me)
			t.mu.Unlock()
		}
		timer.Stop()
		t.mu.Lock()
	}
	t.giveLocked(t.rnd.n(2))
}

// giveLocked gives the turn to thread to (0 or 1) and wakes the waiting threads. Called with mu
// held.
func (t *turns) giveLocked(to int) {
	t.turn = to
	close(t.moved)
	t.moved = make(chan struct{})
}

// alt is a tree that a crash may leave of two operations that run at once. Bits of has are the
// operations that it shows wholly, bits of part the writes that it may show in part.
type alt struct {
	tree      *node
	has, part uint8
}

// atOnce runs two actions on two lanes as one step, under a schedule that depends on seed.
func (w *world) atOnce(seed uint64, acts [2]action) {
	whole := step{name: acts[0].name + " and " + acts[1].name, old: w.root.clone(), alts: alternatives(w.root, acts)}
	t := &turns{rnd: rnd(seed), moved: make(chan struct{})}
	t.turn = t.rnd.n(2)
	var ready, done sync.WaitGroup
	failed := [2]any{}
	begin := make(chan struct{})
	for i := range acts {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			defer func() { failed[i] = recover() }()
			t.tids[i] = unix.Gettid()
			ready.Done()
			<-begin
			// A copy of the model of its own: the real result is compared at the end.
			me := &world{f: w.f, root: w.root.clone(), rec: w.rec, steps: nil}
			me.ctx.Lane = uint32(i)
			acts[i].do(me)
			w.rec.add(event{kind: evDone, n: int64(i), tid: t.tids[i]})
			t.mu.Lock()
			defer t.mu.Unlock()
			t.ended[i] = true
			t.giveLocked(1 - i)
		}()
	}
	ready.Wait()
	w.rec.mark(evBegin, len(w.steps))
	w.rec.turns = t
	close(begin)
	done.Wait()
	w.rec.turns = nil
	w.rec.mark(evEnd, len(w.steps))
	for i, why := range failed {
		if why != nil {
			panic(fmt.Sprintf("%s: %v", acts[i].name, why))
		}
	}
	// Once both have returned, only the order that really happened is right.
	kept := whole.alts[:0]
	for _, tree := range whole.alts {
		if tree.has != 3 {
			kept = append(kept, tree)
		} else if whole.new == nil && match(w.f, tree.tree) == "" {
			kept = append(kept, tree)
			whole.new = tree.tree
		}
	}
	if whole.new == nil {
		panic(fmt.Sprintf("%s: neither order of the two gives this: %s", whole.name, match(w.f, whole.alts[len(whole.alts)-1].tree)))
	}
	whole.alts = kept
	w.root = whole.new.clone()
	w.root.all(func(n *node) {
		if n != w.root {
			n.ino, n.refs = 0, 0 // so that at looks it up again
		}
	})
	w.steps = append(w.steps, whole)
}

// alternatives returns the trees that two actions at once may lead to, in either order. Each action
// is done, not done, or, if it is a write, under way.
func alternatives(root *node, acts [2]action) (alts []alt) {
	for has := uint8(0); has < 4; has++ {
		for part := uint8(0); part < 4; part++ {
			if has&part != 0 || part&1 != 0 && acts[0].writes == "" || part&2 != 0 && acts[1].writes == "" {
				continue
			}
			for _, order := range [][2]int{{0, 1}, {1, 0}} {
				if has|part != 3 && order[0] == 1 {
					continue // with one action or none, the order does not matter
				}
				// First the actions that are done, then those under way, so that the latter's old
				// bytes are known.
				w := &world{root: root.clone()}
				for _, i := range order {
					if has&(1<<i) != 0 {
						acts[i].do(w)
					}
				}
				old := w.root.clone()
				for _, i := range order {
					if part&(1<<i) != 0 {
						acts[i].do(w)
					}
				}
				for _, i := range order {
					if part&(1<<i) != 0 {
						path := parts(acts[i].writes)
						if n := w.root.find(path); n != nil {
							n.was, n.inflight = old.find(path).data, true
						}
					}
				}
				alts = append(alts, alt{w.root, has, part})
			}
		}
	}
	return alts
}

// together returns workloads of two actions at once, for pairs that make sense in either order.
// Each pair runs under the given number of schedules.
func together(seed uint64, orders int) (list []Workload) {
	write := func(path string, off int64, n int) action {
		return action{kind: "write", name: fmt.Sprintf("write %s at %d", path, off), writes: path, do: func(w *world) { w.write(path, off, fill(int(off)+n, n)) }}
	}
	act := func(what string, do func(w *world)) action { return action{kind: what, name: what, do: do} }
	groups := [2][]action{
		{
			act("create d/a", func(w *world) { w.create("d/a") }),
			act("mkdir d/a", func(w *world) { w.mkdir("d/a") }),
			act("unlink d/g", func(w *world) { w.unlink("d/g") }),
			act("rename f d/x", func(w *world) { w.rename("f", "d/x", 0) }),
			act("rename d/sub e/sub", func(w *world) { w.rename("d/sub", "e/sub", 0) }),
			act("chmod d", func(w *world) { w.chmod("d", 0o700) }),
			write("e/h", 0, 5000),
			act("setxattr e/h", func(w *world) { w.setxattr("e/h", "user.a", fill(7, 4200)) }),
			act("truncate big", func(w *world) { w.truncate("big", 50000) }),
			act("link e/h d/h", func(w *world) { w.link("e/h", "d/h") }),
		}, {
			act("create d/b", func(w *world) { w.create("d/b") }),
			act("unlink e/f2", func(w *world) { w.unlink("e/f2") }),
			act("rename e/h d/y", func(w *world) { w.rename("e/h", "d/y", 0) }),
			act("rename e d/e", func(w *world) { w.rename("e", "d/e", 0) }),
			act("rmdir empty", func(w *world) { w.rmdir("empty") }),
			act("symlink e/s", func(w *world) { w.symlink("e/s", "x") }),
			act("chown d", func(w *world) { w.setattr("d", fs.SetAttr{Valid: fs.SetUID, UID: 5}) }),
			write("big", 100, 3000),
			write("big", 120000, 6000),
			act("chmod e/h", func(w *world) { w.chmod("e/h", 0o711) }),
			act("punch big", func(w *world) { w.fallocate("big", punch, 8192, 16384) }),
			act("clone big e/new", func(w *world) { w.clone("big", 0, "copy", 0, 40960) }),
		},
	}
	for _, first := range groups[0] {
		for _, second := range groups[1] {
			if !inAnyOrder(first, second) {
				continue
			}
			for schedule := range orders {
				list = append(list, Workload{Name: fmt.Sprintf("%s & %s, schedule %d", first.name, second.name, schedule), bare: true,
					setup: func(w *world) { tree(w); big(w) },
					op:    func(w *world) { w.atOnce(seed<<8|uint64(schedule), [2]action{first, second}) }})
			}
		}
	}
	return list
}

// big creates the file "big" of 120 000 bytes, and the empty file "copy".
func big(w *world) {
	w.create("big")
	w.write("big", 0, fill(60, 120000))
	w.create("copy")
}

// inAnyOrder reports whether the model allows both orders of a and b.
func inAnyOrder(a, b action) bool {
	set := action{do: big}
	return possible(set, a, b) && possible(set, b, a)
}
