package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/test/harness"
)

var soakSteps = flag.Int("soak-steps", 20_000, "TestSoak: how many times a few system calls")

// soakBound is the growth of the daemon's heap, in bytes, that TestSoak allows between the end of
// its first tenth and its end. soakInodes is the allowed number of inodes in its memory.
const (
	soakBound  = 2 << 20
	soakInodes = 32
)

// TestSoak checks that system calls on a tree of constant size do not make the daemon's memory
// grow. fs.TestSoak makes far more operations, but without a kernel; here requests also have
// FORGETs, buffers and goroutines.
func TestSoak(t *testing.T) {
	for _, via := range []string{"dev", "uring"} {
		t.Run(via, func(t *testing.T) {
			if via == "uring" {
				harness.Uring(t)
			}
			mount := harness.NewWith(t, "transport="+via, 256<<20, 10*time.Minute)
			tree := soak{dir: mount.Path("dir"), rng: rand.New(rand.NewSource(1)), buf: make([]byte, 64<<10)}
			if err := tree.make(); err != nil {
				t.Fatal(err)
			}
			steps := func(n int) (mem fusefs.Runtime) {
				for i := range n {
					if err := tree.step(); err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
				}
				// The size of the live heap is that of the last collection, so wait for one after
				// the last step.
				for before, i := uint64(0), 0; ; i++ {
					buf := make([]byte, 60<<10)
					n, err := unix.Getxattr(mount.Mountpoint, fusefs.ActivityXattr, buf)
					if err != nil {
						t.Fatal(err)
					}
					var activity fusefs.Activity
					if err := json.Unmarshal(buf[:n], &activity); err != nil {
						t.Fatal(err)
					}
					if mem = activity.Runtime; before == 0 {
						before = mem.GCCycles
					}
					if mem.GCCycles >= before+2 || i == 200_000 {
						return mem
					}
				}
			}
			first := steps(*soakSteps / 10)
			last := steps(*soakSteps)
			t.Logf("live: %d bytes, then %d; cached inodes: %d, then %d; %d collections", first.LiveBytes, last.LiveBytes, first.CachedInodes, last.CachedInodes, last.GCCycles-first.GCCycles)
			if last.LiveBytes > first.LiveBytes+soakBound {
				t.Errorf("the daemon's heap grew from %d to %d bytes in %d steps, expected %d more at most", first.LiveBytes, last.LiveBytes, *soakSteps, soakBound)
			}
			if last.CachedInodes > first.CachedInodes+soakInodes {
				t.Errorf("the daemon knew %d inodes, and %d after %d steps", first.CachedInodes, last.CachedInodes, *soakSteps)
			}
		})
	}
}

// soak is a tree of constant size.
type soak struct {
	dir string
	rng *rand.Rand
	buf []byte
}

func (s *soak) path(name string) string { return filepath.Join(s.dir, name) }

func (s *soak) make() error {
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("sub"), 0o755); err != nil {
		return err
	}
	for i := range 63 {
		if err := os.WriteFile(s.path(fmt.Sprintf("n%02d", i)), s.buf[:i<<8], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// step makes a few system calls.
func (s *soak) step() error {
	name := "t"
	if s.rng.Intn(4) == 0 {
		name = strings.Repeat("x", 60+s.rng.Intn(150))
	}
	path, old := s.path(name), s.path(fmt.Sprintf("n%02d", s.rng.Intn(63)))
	var errs []error
	do := func(err error, may ...error) {
		for _, allowed := range may {
			if err == allowed {
				return
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	switch s.rng.Intn(10) {
	case 0:
		do(os.WriteFile(path, s.buf[:s.rng.Intn(len(s.buf))], 0o644))
		do(os.Rename(path, s.path("sub/y")))
		do(unix.Unlink(s.path("sub/y")))
	case 1:
		do(os.Mkdir(path, 0o755))
		do(os.WriteFile(path+"/x", nil, 0o644))
		do(unix.Unlink(path + "/x"))
		do(unix.Rmdir(path))
	case 2:
		do(os.Symlink(strings.Repeat("t", 1+s.rng.Intn(200)), path))
		_, err := os.Readlink(path)
		do(err)
		do(unix.Unlink(path))
	case 3:
		do(os.Link(old, path))
		do(unix.Unlink(path))
	case 4:
		attr := fmt.Sprint("user.", s.rng.Intn(8))
		do(unix.Setxattr(old, attr, s.buf[:s.rng.Intn(6000)], 0))
		_, err := unix.Getxattr(old, attr, s.buf)
		do(err)
		_, err = unix.Listxattr(old, s.buf)
		do(err)
		do(unix.Removexattr(old, attr))
		clear(s.buf)
	case 5: // unlink an open file, then ask for the free space
		file, err := os.Create(path)
		if do(err); err != nil {
			break
		}
		do(unix.Unlink(path))
		_, err = file.Write(s.buf[:8192])
		do(err)
		file.Close()
		var statfs unix.Statfs_t
		do(unix.Statfs(s.dir, &statfs))
	case 6:
		fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		if do(err); err != nil {
			break
		}
		do(unix.Fallocate(fd, 0, 0, 1<<20), unix.EINTR) // EINTR by a signal of Go's scheduler, also below
		do(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 8192), unix.EINTR)
		_, err = unix.Seek(fd, 0, unix.SEEK_HOLE)
		do(err, unix.EINTR)
		unix.Close(fd)
	case 7:
		in, err := os.Open(old)
		do(err)
		out, err2 := os.Create(path)
		do(err2)
		if err == nil && err2 == nil {
			_, err = unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, 1<<20, 0)
			do(err, unix.EINTR)
			do(unix.Unlink(path))
		}
		in.Close()
		out.Close()
	case 8:
		_, err := os.ReadDir(s.dir)
		do(err)
		_, err = os.ReadFile(old)
		do(err)
	case 9:
		var stat unix.Stat_t
		do(unix.Stat(s.path("absent"), &stat), unix.ENOENT)
		do(unix.Mknod(path, unix.S_IFIFO|0o600, 0))
		do(unix.Unlink(path))
		do(unix.Chmod(old, 0o600+uint32(s.rng.Intn(64))))
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}
