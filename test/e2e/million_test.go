package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestMillion creates, lists, stats and deletes a million files in one directory.
func TestMillion(t *testing.T) {
	count := 1_000_000
	if testing.Short() {
		count = 100_000
	}
	m := harness.New(t, 2<<30, 20*time.Minute)
	if err := os.Mkdir(m.Path("many"), 0o755); err != nil {
		t.Fatal(err)
	}
	do := func(what string) {
		t.Helper()
		start := time.Now()
		tenths := harness.RunChild(t, 10*time.Minute, "many-"+what, m.Path("many"), strconv.Itoa(count))
		took := time.Since(start)
		t.Logf("%-6s %7d files in %6.2f s, %5.1f µs each%s", what, count, took.Seconds(), float64(took.Microseconds())/float64(count), tenths)
	}
	do("create")
	do("list")
	do("stat")

	m.Umount()
	clean := m.Up()
	t.Logf("clean mount in %v", clean.Round(time.Millisecond))
	if clean >= time.Second {
		t.Errorf("a clean mount took %v, not below 1 s", clean)
	}
	do("stat")
	m.Kill9()
	dirty := m.Up()
	t.Logf("mount after kill -9 in %v", dirty.Round(time.Millisecond))
	if dirty >= 5*time.Second {
		t.Errorf("a mount after kill -9 took %v, not below 5 s", dirty)
	}
	do("list")
	do("delete")
	if err := os.Remove(m.Path("many")); err != nil {
		t.Errorf("the empty directory: %v", err)
	}
	m.Down()
}

func manyName(i int) string { return fmt.Sprintf("file-%07d", i) }

// fourWays calls f for 0 to n-1 from four goroutines. It prints the time of a call in the first and
// in the last tenth, which must not grow with the directory.
func fourWays(n int, f func(i int) error) error {
	const ways = 4
	var wg sync.WaitGroup
	errs := make([]error, ways)
	var first, last time.Duration
	for w := range ways {
		wg.Go(func() {
			start := time.Now()
			for i := w; i < n; i += ways {
				if w == 0 && i/ways == n/ways/10 {
					first = time.Since(start)
				}
				if w == 0 && i/ways == n/ways/10*9 {
					start = time.Now()
				}
				if errs[w] = f(i); errs[w] != nil {
					return
				}
			}
			if w == 0 {
				last = time.Since(start)
			}
		})
	}
	wg.Wait()
	tenth := float64(n) / 10
	fmt.Printf(" (first tenth %.1f, last %.1f)", float64(first.Microseconds())/tenth, float64(last.Microseconds())/tenth)
	return errors.Join(errs...)
}

func manyArgs(args []string) (dir *os.File, n int, err error) {
	if n, err = strconv.Atoi(args[1]); err == nil {
		dir, err = os.Open(args[0])
	}
	return dir, n, err
}

func manyCreate(args []string) error {
	dir, n, err := manyArgs(args)
	if err != nil {
		return err
	}
	return fourWays(n, func(i int) error {
		fd, err := unix.Openat(int(dir.Fd()), manyName(i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return fmt.Errorf("create %s: %w", manyName(i), err)
		}
		return unix.Close(fd)
	})
}

func manyList(args []string) error {
	dir, n, err := manyArgs(args)
	if err != nil {
		return err
	}
	seen := make([]bool, n)
	for left := n; ; {
		names, err := dir.Readdirnames(10000)
		for _, name := range names {
			var i int
			if _, err := fmt.Sscanf(name, "file-%07d", &i); err != nil || i >= n || manyName(i) != name {
				return fmt.Errorf("the directory lists %q, which was not created", name)
			}
			if seen[i] {
				return fmt.Errorf("the directory lists %s twice", name)
			}
			seen[i] = true
			left--
		}
		if err == io.EOF {
			if left != 0 {
				return fmt.Errorf("%d files are not listed", left)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func manyStat(args []string) error {
	dir, n, err := manyArgs(args)
	if err != nil {
		return err
	}
	return fourWays(n, func(i int) error {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), manyName(i), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("stat %s: %w", manyName(i), err)
		}
		if st.Mode != unix.S_IFREG|0o644 || st.Nlink != 1 || st.Size != 0 {
			return fmt.Errorf("stat %s: mode %o, %d links, size %d", manyName(i), st.Mode, st.Nlink, st.Size)
		}
		return nil
	})
}

func manyDelete(args []string) error {
	dir, n, err := manyArgs(args)
	if err != nil {
		return err
	}
	if err := fourWays(n, func(i int) error {
		if err := unix.Unlinkat(int(dir.Fd()), manyName(i), 0); err != nil {
			return fmt.Errorf("unlink %s: %w", manyName(i), err)
		}
		return nil
	}); err != nil {
		return err
	}
	if left, err := os.ReadDir(filepath.Clean(args[0])); err != nil || len(left) != 0 {
		return fmt.Errorf("after deleting all the directory lists %d files (%v)", len(left), err)
	}
	return nil
}
