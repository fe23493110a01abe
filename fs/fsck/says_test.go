package fsck_test

import (
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestRepairSays checks that a problem has its path, and what a repair cannot restore, before the
// repair and after it.
func TestRepairSays(t *testing.T) {
	for name, c := range map[string]struct {
		harm             func(w *world)
		code, path, says string
	}{
		"root":  {func(w *world) { w.smash(w.inode("/")) }, fsck.InodeCore, "/", "loses its owner, permissions, flags and project: it becomes user 0's and group 0's with mode 0700"},
		"file":  {func(w *world) { w.smash(w.inode("/d/sub/deep")) }, fsck.InodeCore, "/d/sub/deep", "mode 0600"},
		"times": {func(w *world) { w.smash(w.inode("/d/g") + layout.InodeTimesOff) }, fsck.InodeTimes, "/d/g", "loses its times"},
		"links": {func(w *world) { w.core("/d/g", func(c *layout.Core) { c.Nlink = 7 }) }, fsck.Nlink, "/d/g", "expected 1"},
		"line":  {func(w *world) { w.smash(w.dentry("/d/sub", "deep")) }, fsck.DirLine, "/d/sub", "loses the name"},
	} {
		t.Run(name, func(t *testing.T) {
			w := build(t)
			c.harm(w)
			for _, repair := range []bool{false, true} {
				var said []string
				rep, err := fsck.Check(w.R, fsck.Options{Repair: repair, Found: func(p fsck.Problem) { said = append(said, p.String()) }})
				if err != nil || len(rep.Problems) == 0 {
					t.Fatalf("%v, %+v", err, rep)
				}
				p := rep.Problems[0]
				if p.Code != c.code || p.Path != c.path || !strings.Contains(p.What, c.says) || p.Fixed != repair || p.Fixable == repair {
					t.Errorf("%+v, expected %s of %s that says %q", p, c.code, c.path, c.says)
				}
				if len(said) != len(rep.Problems) || !strings.Contains(said[0], c.path) {
					t.Errorf("it said %q, the report has %v", said, rep.Problems)
				}
			}
		})
	}
}
