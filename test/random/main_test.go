package random

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

var (
	ops        = flag.Int("ops", 100_000, "operations of the file exerciser, over all seeds and cache modes")
	seed       = flag.Uint64("seed", 0, "the first seed; 0: from the clock")
	seeds      = flag.Int("seeds", 5, "number of seeds of the file exerciser; each fifth with files of up to 64 MiB")
	daxMode    = flag.String("dax", "", "only this cache mode: always, never or inode; \"\": all")
	onDir      = flag.String("dir", "", "exercise this directory, of any filesystem, instead of a mount; nothing is remounted")
	duration   = flag.Duration("duration", 30*time.Second, "duration of the namespace exerciser with dax=always; a quarter of that with other cache modes")
	procs      = flag.Int("procs", 8, "number of processes of the namespace exerciser")
	pollute    = flag.Bool("pollute", false, "also store through mappings beyond the end of file")
	msyncFirst = flag.Bool("msync", false, "write mappings back before every call that reads a file in another way")
)

// TestMain keeps the regions in memory, unless TMPDIR is set: on a disk, fsync takes most of the
// time.
func TestMain(m *testing.M) {
	if _, err := os.Stat("/dev/shm"); err == nil && os.Getenv("TMPDIR") == "" {
		_ = os.Setenv("TMPDIR", "/dev/shm")
	}
	harness.Main(m, harness.Children{"names": names})
}

// firstSeed returns -seed, or a seed from the clock.
func firstSeed(t *testing.T) uint64 {
	if *seed == 0 {
		*seed = uint64(time.Now().Unix())
	}
	t.Logf("-seed %d", *seed)
	return *seed
}

// modes returns the cache modes to test. With inode, every second file has FS_DAX_FL.
func modes(t *testing.T) []string {
	switch {
	case *onDir != "":
		return []string{"dir"}
	case *daxMode == "":
		return []string{"always", "never", "inode"}
	case *daxMode == "always", *daxMode == "never", *daxMode == "inode":
		return []string{*daxMode}
	}
	t.Fatalf("-dax %s: it is always, never or inode", *daxMode)
	return nil
}

// place is where an exerciser works: a mount, or the directory of -dir.
type place struct {
	*harness.Mount // nil: the directory of -dir
	dir            string
}

func newPlace(t *testing.T, mode string, size int64, limit time.Duration) *place {
	t.Helper()
	if *onDir != "" {
		dir, err := os.MkdirTemp(*onDir, "exercise-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		// There is no mount to destroy: the deadline of go test ends a call that hangs.
		return &place{dir: dir}
	}
	m := harness.NewWith(t, "dax="+mode, size, limit)
	return &place{Mount: m, dir: m.Mountpoint}
}

// again remounts, if there is a mount.
func (p *place) again() {
	if p.Mount != nil {
		p.Mount.Again()
	}
}
