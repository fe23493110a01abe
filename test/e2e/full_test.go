package e2e

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestFull fills a mount to the last block and the last name, and empties it.
func TestFull(t *testing.T) {
	mount := harness.New(t, 64<<20, 3*time.Minute)
	rng := rand.NewChaCha8([32]byte{7})
	fill := func(name string, size int) error {
		content := make([]byte, size)
		_, _ = rng.Read(content)
		return os.WriteFile(name, content, 0o644)
	}
	keep := map[string][32]byte{}
	for i := range 8 {
		name := mount.Path(fmt.Sprintf("keep%d", i))
		if err := fill(name, 1<<20+i*1001); err != nil {
			t.Fatal(err)
		}
		keep[name] = sum(t, name)
	}
	kept := func(when string) {
		t.Helper()
		for name, want := range keep {
			if sum(t, name) != want {
				t.Fatalf("%s: %s has changed", when, name)
			}
		}
	}
	before := statfs(t, mount)
	junk := mount.Path("junk")
	if err := os.Mkdir(junk, 0o755); err != nil {
		t.Fatal(err)
	}
	// Large files, then small ones, then names alone.
	made := 0
	until := func(what string, most int, create func(name string) error) {
		t.Helper()
		for i := range most {
			err := create(filepath.Join(junk, fmt.Sprintf("%s%06d", what, i)))
			if errors.Is(err, unix.ENOSPC) {
				t.Logf("%d %s until ENOSPC", i, what)
				return
			}
			if err != nil {
				t.Fatalf("%s %d: %v, want ENOSPC at last", what, i, err)
			}
			made++
		}
		t.Fatalf("%d %s made and still no ENOSPC: %+v", most, what, statfs(t, mount))
	}
	until("large", 64, func(name string) error { return fill(name, 1<<20) })
	until("small", 20000, func(name string) error { return fill(name, 4096) })
	until("empty", 400000, func(name string) error {
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	})
	if err := appendTo(filepath.Join(junk, "large000000"), 2<<20); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("appending to a file on a full mount: %v, want ENOSPC", err)
	}
	kept("full")
	// A full filesystem can be mounted and checked.
	mount.Again()
	kept("full, after a remount")
	// Deleting works, and the freed space can be used.
	if err := os.Remove(filepath.Join(junk, "large000001")); err != nil {
		t.Fatalf("deleting on a full mount: %v", err)
	}
	if err := fill(filepath.Join(junk, "large000000"), 512<<10); err != nil {
		t.Errorf("writing after deleting: %v", err)
	}
	if err := os.RemoveAll(junk); err != nil {
		t.Fatalf("deleting all: %v", err)
	}
	mount.Again() // files that were still open are freed now
	after := statfs(t, mount)
	if lost := int64(before.Bfree) - int64(after.Bfree); lost > int64(before.Bfree)/100 {
		t.Errorf("%d of %d free blocks did not come back", lost, before.Bfree)
	}
	kept("emptied")
	if err := fill(mount.Path("big"), int(before.Bavail)*int(before.Bsize)/10*9); err != nil {
		t.Errorf("a file as large as 9/10 of the free space: %v", err)
	}
	kept("filled again")
	mount.Down()
}

func appendTo(name string, size int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, size))
	return errors.Join(err, f.Close())
}

func sum(t *testing.T, name string) (s [32]byte) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

func statfs(t *testing.T, m *harness.Mount) (st syscall.Statfs_t) {
	t.Helper()
	if err := syscall.Statfs(m.Mountpoint, &st); err != nil {
		t.Fatal(err)
	}
	return st
}
