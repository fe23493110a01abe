package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockHolderByMount checks that the holder of a lock is found if stat(2) returns another device
// than the superblock's. That is so on btrfs and, as here, on an overlay whose layers are on two
// filesystems.
func TestLockHolderByMount(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	low, up, merged := filepath.Join(dir, "low"), filepath.Join(dir, "up"), filepath.Join(dir, "merged")
	for _, d := range []string{low, up} {
		if err := errors.Join(os.Mkdir(d, 0o755), unix.Mount("none", d, "tmpfs", 0, "size=1m")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(d, unix.MNT_DETACH) })
	}
	if err := errors.Join(os.Mkdir(up+"/upper", 0o755), os.Mkdir(up+"/work", 0o755), os.Mkdir(merged, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", merged, "overlay", 0, "lowerdir="+low+",upperdir="+up+"/upper,workdir="+up+"/work"); err != nil {
		t.Skip("no overlay: ", err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	f, err := os.Create(filepath.Join(merged, "region"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if pid := lockHolder(f.Name()); pid != os.Getpid() {
		t.Errorf("the holder is process %d, want %d", pid, os.Getpid())
	}
}
