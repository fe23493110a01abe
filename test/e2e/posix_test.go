package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/daxfsd/daxfsd/test/harness"
)

// posixEnv makes this binary run one function of posixtest. Its value is "Name=directory".
const posixEnv = "DAXFSD_MOUNTED_POSIX"

// TestPosix runs go-fuse's posixtest on the mount. A test that also fails on this machine's own
// filesystem is only logged.
func TestPosix(t *testing.T) {
	m := harness.New(t, 256<<20, 4*time.Minute)
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			verdict, out := posixOne(t, name, m.Path(name))
			m.Alive()
			if verdict == "PASS" {
				return
			}
			control, _ := posixOne(t, name, filepath.Join(m.Dir, "control", name))
			if control != verdict {
				t.Errorf("%s, but %s on the machine's own filesystem\n%s", verdict, control, out)
				return
			}
			t.Logf("no judgement: %s here and on the machine's own filesystem\n%s", verdict, out)
		})
	}
}

// posixOne runs one function in a process of its own. It returns PASS, SKIP or FAIL, and the
// output.
func posixOne(t *testing.T, name, dir string) (verdict, out string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := harness.Command(time.Minute, "", []string{posixEnv + "=" + name + "=" + dir}, os.Args[0], "-test.run=^TestPosixOne$", "-test.v", "-test.timeout=50s")
	switch {
	case err == nil && strings.Contains(out, "--- SKIP: TestPosixOne"):
		return "SKIP", out
	case err == nil && strings.Contains(out, "--- PASS: TestPosixOne"):
		return "PASS", out
	}
	return "FAIL", out
}

// TestPosixOne is the test that posixOne runs. Without posixEnv it does nothing.
func TestPosixOne(t *testing.T) {
	name, dir, ok := strings.Cut(os.Getenv(posixEnv), "=")
	if !ok {
		return
	}
	posixtest.All[name](t, dir)
}
