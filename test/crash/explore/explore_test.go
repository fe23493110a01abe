package explore

import (
	"bytes"
	"strings"
	"testing"
)

// TestAll explores every workload, with fewer states than the command.
func TestAll(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Limits = Limits{Lines: 4, Torn: 1, Random: 1}
	cfg.Composed = cfg.Limits
	cfg.Nested, cfg.DeleteAll = 4000, 64
	ws := append(append(singles(), repairs()...), atomics()...)
	sc := Scope{Triples: 5, Once: -1, Orders: 1, Full: -1}
	ws = append(ws, sampled(Workloads(cfg.Seed, sc), 1, 40)...)
	if testing.Short() {
		ws = append(ws[:8], sampled(together(cfg.Seed, sc.Orders), 1, 3)...)
	}
	r := Runner{Config: cfg, Scope: sc, Workers: 2}
	rep, err := r.Run(ws)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rep.Failures {
		t.Errorf("%v", &rep.Failures[i])
	}
	t.Logf("%d workloads, %d states, %.1f s", rep.Workloads, rep.States, rep.Seconds)
}

// TestRecords runs every workload of the full scope without exploring it. It checks that each has a
// name of its own, that the filesystem does what the model says, and that no sample holds a
// workload that cannot run.
func TestRecords(t *testing.T) {
	ws := Workloads(DefaultConfig().Seed, FullScope)
	names := map[string]bool{}
	for i, w := range ws {
		if names[w.Name] {
			t.Errorf("two workloads are called %q", w.Name)
		}
		names[w.Name] = true
		if testing.Short() && i%50 != 0 {
			continue
		}
		if _, err := record(&w); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d workloads", len(ws))
}

func workload(t *testing.T, name string) *Workload {
	for _, w := range append(singles(), atomics()...) {
		if w.Name == name {
			return &w
		}
	}
	t.Fatalf("no workload %s", name)
	return nil
}

// TestNotices plants bugs that the explorer must notice. If it missed them, the explorer would
// prove nothing.
func TestNotices(t *testing.T) {
	c := DefaultConfig()
	c.MaxFailures = 1
	x, err := newExplorer(c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	for _, c := range []struct {
		name, workload string
		drop           func(e *event) bool
	}{
		{"no fence at all", "create", func(e *event) bool { return e.kind == evFence }},
		{"no flush at all", "create", func(e *event) bool { return e.kind == evFlush }},
		{"no fence of the commit", "rename", func(e *event) bool { return e.kind == evFence && strings.Contains(e.site, "journal.(*Tx).Commit") }},
		{"no flush of the previous record's lines", "rename", func(e *event) bool { return e.kind == evFlush && strings.Contains(e.site, "journal.(*Tx).Commit") }},
		{"no fence of the data", "write-append", func(e *event) bool { return e.kind == evFence && strings.Contains(e.site, "storePiece") }},
		{"no fence of a fresh directory block", "create-grow-dir", func(e *event) bool { return e.kind == evFence && strings.Contains(e.site, "FormatBlock") }},
		{"no fence of an overwrite", "write-overwrite", func(e *event) bool { return e.kind == evFence && strings.Contains(e.site, "overwrite") }},
		{"no fence of a logged record", "atomic-block", func(e *event) bool { return e.kind == evFence && strings.Contains(e.site, "commitLogged") }},
		{"logged records that are never checkpointed", "atomic-block", func(e *event) bool { return e.kind == evFlush && strings.Contains(e.site, "clearSlot") }},
		{"no checkpoint in recovery", "atomic-recovery", func(e *event) bool { return e.kind == evFlush && strings.Contains(e.site, "clearSlot") }},
		{"no fence in recovery", "mount-dirty", func(e *event) bool {
			return e.kind == evFence && strings.Contains(e.site, "journal.(*Journal).Recover")
		}},
	} {
		rec, err := record(workload(t, c.workload))
		if err != nil {
			t.Fatal(err)
		}
		if res := x.explore(c.workload, rec, mutant{skip: c.drop, kind: rec.steps[0].kind()}); len(res.Failures) == 0 {
			t.Errorf("%s: not noticed in %d states of %s", c.name, res.States, c.workload)
		} else {
			t.Logf("%s: %s", c.name, res.Failures[0].What)
		}
	}
}

// TestUndo checks that after an exploration the scratch region equals the image that the recording
// made durable.
func TestUndo(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Limits = Limits{Lines: 4}
	x, err := newExplorer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	for _, name := range []string{"write-append", "chmod"} {
		rec, err := record(workload(t, name))
		if err != nil {
			t.Fatal(err)
		}
		x.explore(name, rec, mutant{})
		if !bytes.Equal(x.durable, x.scratch.Bytes(0, regionSize)) {
			t.Errorf("%s: the scratch region differs from the durable image", name)
		}
	}
}

// TestSame checks that exploring a workload twice gives the same states, so that a state can be
// reproduced by its number.
func TestSame(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Limits = Limits{Lines: 6, Torn: 2, Random: 2}
	x, err := newExplorer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	var made [2]Result
	for i := range made {
		rec, err := record(workload(t, "truncate-down"))
		if err != nil {
			t.Fatal(err)
		}
		made[i] = x.explore("truncate-down", rec, mutant{})
	}
	if a, b := made[0], made[1]; a.Made != b.Made || a.States != b.States || a.Points != b.Points {
		t.Errorf("%+v and %+v", a, b)
	}
}

func TestImage(t *testing.T) {
	bytesOf := func(value byte, n int) []byte { return bytes.Repeat([]byte{value}, n) }
	for _, row := range []struct {
		name   string
		events []event
		want   byte // durable value of byte 0
		pend   int  // number of pending lines
	}{
		{"store alone", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evFence, tid: 1}}, 0, 1},
		{"store, flush", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evFlush, tid: 1, n: 64}}, 0, 1},
		{"store, flush, fence", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evFlush, tid: 1, n: 64}, {kind: evFence, tid: 1}}, 1, 0},
		{"another thread's fence", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evFlush, tid: 1, n: 64}, {kind: evFence, tid: 2}}, 0, 1},
		{"another thread's flush and fence", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evFlush, tid: 2, n: 64}, {kind: evFence, tid: 2}}, 1, 0},
		{"store behind the flush", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evFlush, tid: 1, n: 64}, {kind: evStore, tid: 1, n: 64, data: bytesOf(2, 64)}, {kind: evFence, tid: 1}}, 1, 1},
		{"non-temporal", []event{{kind: evNT, tid: 1, n: 128, data: bytesOf(1, 128)}, {kind: evFence, tid: 1}}, 1, 0},
		{"another thread's non-temporal", []event{{kind: evNT, tid: 1, n: 128, data: bytesOf(1, 128)}, {kind: evFence, tid: 2}}, 0, 2},
		{"non-temporal over a pending store", []event{{kind: evStore, tid: 1, n: 64, data: bytesOf(1, 64)}, {kind: evNT, tid: 1, n: 64, data: bytesOf(2, 64)}, {kind: evFence, tid: 1}}, 2, 0},
	} {
		img := newImage(make([]byte, 4096))
		for i := range row.events {
			switch entry := &row.events[i]; entry.kind {
			case evStore, evNT:
				img.store(entry, i)
			case evFlush:
				img.flush(entry)
			case evFence:
				img.fence(entry.tid)
			}
		}
		if img.durable[0] != row.want || len(img.list()) != row.pend {
			t.Errorf("%s: durable %d, %d pending; expected %d, %d", row.name, img.durable[0], len(img.list()), row.want, row.pend)
		}
		var sum uint64
		for off := int64(0); off < 4096; off += lineSize {
			sum += hashLine(off, img.at(off))
		}
		if sum != img.hash {
			t.Errorf("%s: the hash of the image is wrong", row.name)
		}
	}
}

// TestWriteRule checks which contents a crash during a write may leave.
func TestWriteRule(t *testing.T) {
	old, now := []byte("AAAAAAAABBBBBBBBCCCC"), []byte("AAAAaaaabbbbbbbbccccdddd")
	n := &node{data: now, was: old, inflight: true}
	for _, c := range []struct {
		got string
		ok  bool
	}{
		{"AAAAAAAABBBBBBBBCCCC", true},
		{"AAAAaaaabbbbbbbbccccdddd", true},
		{"AAAAAAAAbbbbbbbbCCCCdddd", true},
		{"AAAAaaaaBBBBBBBBccccdddd", true},
		{"AAAAaaaaBBBBbbbbccccdddd", false}, // half a word is old
		{"AAAAaaaaBBBBBBBBccccxxxx", false}, // bytes that were never written
		{"AAAAaaaaBBBBBBBBcccc\x00\x00\x00\x00", false},
	} {
		if why := n.compare(0, []byte(c.got)); (why == "") != c.ok {
			t.Errorf("%q: %q", c.got, why)
		}
	}
}
