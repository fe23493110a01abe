package guest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/daxfs/daxfs/test/acked"
	"github.com/daxfs/daxfs/test/mounttest"
)

func TestMain(m *testing.M) {
	if os.Getenv("DAXFS_GUEST") == "" {
		fmt.Fprintln(os.Stderr, "these tests make namespaces of /dev/pmem0 and format them; they run in a guest: make test-vm")
		os.Exit(1)
	}
	mounttest.Main(m, mounttest.Children{"work": acked.Work})
}

// limit is how long a command may take under emulation on a busy host.
const limit = 3 * time.Minute

// run is a command that must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	return mounttest.Run(t, limit, "", nil, name, args...)
}

// refused is a daxfsd that must fail; it returns what it said.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	out, err := mounttest.Command(limit, "", nil, mounttest.Daxfsd, args...)
	if err == nil {
		t.Errorf("daxfsd %v succeeded: %s", args, out)
	}
	return out
}
