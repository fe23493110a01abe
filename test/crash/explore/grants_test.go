package explore

import (
	"strings"
	"testing"
)

// TestNoticesGrants plants bugs in the orders on which grants rest, those of the filesystem and
// those of a program, as TestNotices does.
func TestNoticesGrants(t *testing.T) {
	c := DefaultConfig()
	c.MaxFailures = 1
	x, err := newExplorer(c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	fence := func(site string) func(e *event) bool {
		return func(e *event) bool { return e.kind == evFence && strings.Contains(e.site, site) }
	}
	for _, c := range []struct {
		name, workload, kind string
		drop                 func(e *event) bool
		order                string
	}{
		{"no fence of the zeros of a grant", "grant-unwritten", "grant", fence("fillPieces"), ""},
		{"no fence of the zeros of holes", "grant-hole", "grant", fence("fillPieces"), ""},
		{"no fence of the copy that a grant makes", "grant-shared", "grant", fence("fillPieces"), ""},
		{"no fence of the commit", "grant-unwritten-middle", "grant", fence("journal.(*Tx).Commit"), ""},
		{"commit before the zeros", "grant-unwritten", "grant", nil, "commit before the data that it shows"},
		{"commit before the copy", "grant-shared", "grant", nil, "commit before the data that it shows"},
		{"lines in place before their record", "grant-holes", "grant", nil, "lines in place before their record"},
		{"no fence of zeros below a grant", "grant-zero", "zero", fence("zeroStored"), ""},
		{"no flush by the program", "grant-written", "flush", func(e *event) bool { return e.kind == evFlush }, ""},
		{"no fence by the program", "grant-written", "store", func(e *event) bool { return e.kind == evFence }, ""},
	} {
		rec, err := record(workload(t, c.workload))
		if err != nil {
			t.Fatal(err)
		}
		res := x.explore(c.workload, rec, mutant{kind: c.kind, skip: c.drop, order: orders[c.order]})
		if len(res.Failures) == 0 {
			t.Errorf("%s: not noticed in %d states of %s", c.name, res.States, c.workload)
		} else {
			t.Logf("%s: %s", c.name, res.Failures[0].What)
		}
	}
}
