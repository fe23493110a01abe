package mounted

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// daxfsd is the path of the binary that TestMain builds.
var daxfsd string

// childEnv tells this binary, started again by a test, which child of children to
// be.
const childEnv = "DAXFS_MOUNTED_CHILD"

// children are programs that tests start as processes of their own, so that the
// kernel sees mappings, open files and deaths that are not the test's.
var children = map[string]func(args []string) error{
	"mmap-write":  mmapWrite,
	"mmap-check":  mmapCheck,
	"mmap-watch":  mmapWatch,
	"many-create": manyCreate,
	"many-list":   manyList,
	"many-stat":   manyStat,
	"many-delete": manyDelete,
	"kill-writer": killWriter,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		f, ok := children[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no child is named", name)
			os.Exit(2)
		}
		if err := f(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(posixEnv) != "" {
		os.Exit(m.Run()) // one function of posixtest on a given directory, see posix_test.go
	}
	os.Exit(build(m))
}

// build makes the binary and runs the tests.
func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "daxfs-mounted-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	daxfsd = filepath.Join(dir, "daxfsd")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", daxfsd, "github.com/daxfs/daxfs/cmd/daxfsd")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building daxfsd: %v\n%s", err, out)
		return 1
	}
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-sig
		fmt.Fprintf(os.Stderr, "%v: taking the mounts away\n", s)
		for _, mt := range liveMounts() {
			mt.destroy()
		}
		os.RemoveAll(dir)
		os.Exit(1)
	}()
	return m.Run()
}
