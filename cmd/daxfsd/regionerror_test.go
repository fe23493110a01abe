package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRegionErrors checks that all commands say why a region cannot be used.
func TestRegionErrors(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needFUSE(t)
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere/else", link); err != nil {
		t.Fatal(err)
	}
	chattr := func(flag string) string {
		path := newRegion(t)
		if out, err := exec.Command("chattr", "+"+flag, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { exec.Command("chattr", "-"+flag, path).Run() })
		return path
	}
	readOnly := memoryFilesystem(t, "size=64m")
	onReadOnly := filepath.Join(readOnly, "region")
	must(t, "mkfs", "--sparse", "--size", "32MiB", onReadOnly)
	if err := unix.Mount("none", readOnly, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		reads      bool // commands that only read work
		words      []string
	}{
		{"dangling link", link, false, []string{"symbolic link", "nowhere/else", "does not exist"}},
		{"immutable", chattr("i"), true, []string{"immutable", "chattr -i"}},
		{"append-only", chattr("a"), true, []string{"appended", "chattr -a"}},
		{"filesystem mounted read-only", onReadOnly, true, []string{"mounted read-only"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			words := append(c.words, c.path)
			refused(t, daxfsd(t, "mkfs", "--force", c.path), 1, words...)
			refused(t, daxfsd(t, "mount", c.path, mountPoint(t)), 1, words...)
			refused(t, daxfsd(t, "fsck", "-y", c.path), fsckOperational, words...)
			if !c.reads {
				refused(t, daxfsd(t, "info", c.path), 1, words...)
				refused(t, daxfsd(t, "fsck", "-n", c.path), fsckOperational, words...)
				refused(t, daxfsd(t, "mount", "--format-if-empty", c.path, mountPoint(t)), 1, words...)
				return
			}
			must(t, "info", c.path)
			must(t, "fsck", "-n", c.path)
			mp := mountPoint(t)
			must(t, "mount", "-o", "ro", c.path, mp)
			must(t, "umount", mp)
		})
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced")
	}
	refused(t, daxfsd(t, "mkfs", filepath.Join(readOnly, "new")), 1, "mounted read-only")

	const uid = 65534
	mine := userDir(t, uid)
	exe := reachable(t, mine)
	for _, c := range []struct {
		mode  os.FileMode
		words []string
	}{{0o444, []string{"can be read", "write"}}, {0o400, []string{"no permission", "as its owner"}}} {
		path := filepath.Join(mine, fmt.Sprintf("%o", c.mode))
		must(t, "mkfs", "--sparse", "--size", "32MiB", path)
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		refused(t, asUserExe(t, exe, uid, "mkfs", "--force", path), 1, append(c.words, path)...)
		refused(t, asUserExe(t, exe, uid, "fsck", "-y", path), fsckOperational, append(c.words, path)...)
	}
	other := filepath.Join(t.TempDir(), "new")
	refused(t, asUserExe(t, exe, uid, "mkfs", "--sparse", other), 1, "no permission", other, filepath.Dir(other))
}

// TestFullDiskBelow checks a sparse region on a full disk: the error says so, writes fail with
// ENOSPC, no memory is taken for bad, and everything works again when there is room.
func TestFullDiskBelow(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	dir := memoryFilesystem(t, "size=24m")
	path, mp, log := filepath.Join(dir, "region"), mountPoint(t), filepath.Join(t.TempDir(), "log")
	must(t, "mkfs", "--sparse", "--size", "64MiB", path)
	must(t, "mount", "--log", log, path, mp)
	piece := bytes.Repeat([]byte("daxfsd"), 1<<20/5)
	file, err := os.Create(filepath.Join(mp, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var kept int64
	for err == nil && kept < 64<<20 {
		var n int
		n, err = file.WriteAt(piece, kept)
		kept += int64(n)
	}
	if !errors.Is(err, unix.ENOSPC) || kept < 16<<20 || kept > 24<<20 {
		t.Errorf("after %d bytes on a disk of 24 MiB: %v, want ENOSPC", kept, err)
	}
	if text := readFile(t, log); !bytes.Contains(text, []byte("sparse")) || !bytes.Contains(text, []byte("full")) || bytes.Contains(text, []byte("lost")) {
		t.Errorf("the log does not say that the disk is full: %s", text)
	}
	info := decode(t, must(t, "info", "--json", mp))
	if info["bad_ranges"] != 0.0 {
		t.Errorf("%v ranges of memory are bad", info["bad_ranges"])
	}
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=80m"); err != nil {
		t.Fatal(err)
	}
	for ; kept < 40<<20; kept += int64(len(piece)) {
		if _, err := file.WriteAt(piece, kept); err != nil {
			t.Fatalf("with room on the disk: %v", err)
		}
	}
	file.Close()
	must(t, "umount", mp)
	must(t, "fsck", "-n", path)

	full := memoryFilesystem(t, "size=32k")
	small := filepath.Join(full, "region")
	refused(t, daxfsd(t, "mkfs", "--sparse", "--size", "64MiB", small), 1, small, "sparse", "full")
	if left, err := os.ReadDir(full); err != nil || len(left) > 0 {
		t.Errorf("mkfs left %v, %v", left, err)
	}
	if text := strings.TrimSpace(string(readFile(t, log))); strings.Count(text, "sparse") != 1 {
		t.Errorf("it was told again and again: %s", text)
	}
}
