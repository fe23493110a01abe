package fs_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// TestLookupAllocs checks that looking up a name allocates nothing, whether it exists or not.
func TestLookupAllocs(t *testing.T) {
	v := newVolume(t, 16<<20)
	long := strings.Repeat("long", 60)
	v.Create("/short")
	v.Create("/" + long)
	for name, want := range map[string]syscall.Errno{"short": 0, long: 0, "missing": syscall.ENOENT} {
		var a fs.Attr
		if n := testing.AllocsPerRun(1000, func() {
			if e := v.FS.Lookup(&v.Ctx, 1, name, &a); e != want {
				t.Fatalf("lookup of %q: %v, want %v", name, e, want)
			}
			if want == 0 {
				v.FS.Forget(a.Ino, 1)
			}
		}); n != 0 {
			t.Errorf("%v allocations for looking up %q", n, name)
		}
	}
}
