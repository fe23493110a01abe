package fsck_test

import (
	"fmt"
	"testing"

	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestManyProblems checks that -n and -y count the problems beyond those that a report lists.
func TestManyProblems(t *testing.T) {
	const n = fsck.MaxProblems + 100
	if testing.Short() {
		t.Skip("10 000 repairs: make unit runs them")
	}
	w := build(t)
	w.mounted(func() {
		for i := range n {
			w.file(fmt.Sprintf("/%d", i), 0)
		}
	})
	for i := range n {
		w.core(fmt.Sprintf("/%d", i), func(c *layout.Core) { c.Nlink = 7 })
	}
	for _, repair := range []bool{false, true} {
		told := 0
		rep, err := fsck.Check(w.R, fsck.Options{Repair: repair, Found: func(fsck.Problem) { told++ }})
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Problems) != fsck.MaxProblems || told != n {
			t.Errorf("repair %v: %d listed, %d told of %d", repair, len(rep.Problems), told, n)
		}
		if repair && (rep.Repaired != n || rep.Left != 0) || !repair && (rep.Fixable != n || rep.Left != n) {
			t.Errorf("repair %v: %d repaired, %d left, %d of them fixable, of %d", repair, rep.Repaired, rep.Left, rep.Fixable, n)
		}
	}
	if rep := w.check(false); rep.ExitCode() != 0 {
		t.Errorf("afterwards: exit %d, %v", rep.ExitCode(), tail(rep.Problems))
	}
}
