package guest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
	"github.com/daxfsd/daxfsd/test/oracle"
)

func TestMain(m *testing.M) {
	if os.Getenv("DAXFSD_GUEST") == "" {
		fmt.Fprintln(os.Stderr, "these tests make namespaces of /dev/pmem0 and format them; they run in a guest: make test-vm")
		os.Exit(1)
	}
	harness.Main(m, harness.Children{"work": oracle.Work, "store": store, "count": count, "stay": stay, "refuse": refuse})
}

// limit bounds the time of a command, under emulation on a busy host.
const limit = 3 * time.Minute

// run runs a command that must succeed, and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	return harness.Run(t, limit, "", nil, name, args...)
}

// refused runs a daxfsd command that must fail, and returns its output.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	out, err := harness.Command(limit, "", nil, harness.Daxfsd, args...)
	if err == nil {
		t.Errorf("daxfsd %v succeeded: %s", args, out)
	}
	return out
}
