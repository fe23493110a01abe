package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestCopy copies a real tree and requires that it is unchanged after a remount.
func TestCopy(t *testing.T) {
	harness.Need(t, "cp", "diff")
	const source, most = "/usr/share/doc", 200 << 20
	trees := boundedTrees(t, source, most)
	m := harness.New(t, 1<<30, 4*time.Minute)
	dst := m.Path("doc")
	if err := os.Mkdir(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-a", "--"}
	for _, name := range trees {
		args = append(args, filepath.Join(source, name))
	}
	harness.Run(t, 2*time.Minute, "", nil, "cp", append(args, dst)...)
	m.Again()
	entries, err := os.ReadDir(dst)
	if err != nil || len(entries) != len(trees) {
		t.Fatalf("the copy has %d entries, want %d (%v)", len(entries), len(trees), err)
	}
	if len(trees) == countEntries(t, source) {
		if out, err := harness.Command(2*time.Minute, "", nil, "diff", "-r", "--no-dereference", source, dst); err != nil || out != "" {
			t.Fatalf("diff -r: %v\n%s", err, out)
		}
	}
	files := 0
	for _, name := range trees {
		if len(trees) != countEntries(t, source) {
			if out, err := harness.Command(time.Minute, "", nil, "diff", "-r", "--no-dereference", filepath.Join(source, name), filepath.Join(dst, name)); err != nil || out != "" {
				t.Fatalf("diff -r: %v\n%s", err, out)
			}
		}
		files += sameAttributes(t, filepath.Join(source, name), filepath.Join(dst, name))
	}
	t.Logf("%d files, directories and symbolic links", files)
}

func countEntries(t *testing.T, dir string) int {
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// boundedTrees returns entries of dir: the first ones that together hold at most most bytes.
func boundedTrees(t *testing.T, dir string, most int64) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, e := range entries {
		var size int64
		_ = filepath.WalkDir(filepath.Join(dir, e.Name()), func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if st, err := d.Info(); err == nil {
				size += (st.Size() + 4095) &^ 4095
			}
			return nil
		})
		if total+size <= most {
			total += size
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		t.Fatalf("nothing in %s to copy", dir)
	}
	return names
}

// sameAttributes compares the attributes that `diff -r` ignores, and returns the number of files.
func sameAttributes(t *testing.T, src, dst string) (n int) {
	facts := func(name string) string {
		st, err := os.Lstat(name)
		if err != nil {
			return err.Error()
		}
		sys := st.Sys().(*syscall.Stat_t)
		s := fmt.Sprintf("mode %v owner %d:%d mtime %v", st.Mode(), sys.Uid, sys.Gid, st.ModTime())
		if !st.IsDir() {
			s += fmt.Sprintf(" size %d", st.Size())
		}
		if st.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			s += fmt.Sprintf(" -> %s %v", target, err)
		}
		return s
	}
	err := filepath.WalkDir(src, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, name)
		if err != nil {
			return err
		}
		n++
		if a, b := facts(name), facts(filepath.Join(dst, rel)); a != b {
			t.Errorf("%s:\n got %s\nwant %s", name, b, a)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
