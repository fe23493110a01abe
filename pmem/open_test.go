package pmem

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenKinds(t *testing.T) {
	tmpfs := func(fs *unix.Statfs_t) { fs.Type = unix.TMPFS_MAGIC }
	hugetlb := func(fs *unix.Statfs_t) { fs.Type, fs.Bsize = unix.HUGETLBFS_MAGIC, 2<<20 }
	yes := func(int) error { return nil }
	refuse := func(int) error { return unix.EOPNOTSUPP }
	for _, test := range []struct {
		hooks hooks
		size  int64
		kind  Kind
		name  string
		dur   Durability
		align int64
		want  int64 // size in bytes
	}{
		{hooks{mapSync: refuse}, 10000, KindFile, "file", DurableDaemon, 4096, 8192},
		{hooks{statfs: tmpfs}, 1 << 20, KindTmpfs, "tmpfs", Volatile, 4096, 1 << 20},
		{hooks{statfs: hugetlb}, 5 << 20, KindHugetlb, "hugetlbfs", Volatile, 2 << 20, 4 << 20},
		{hooks{mapSync: yes, noSync: true}, 3 << 20, KindFSDax, "fsdax", DurableFlush, 2 << 20, 3 << 20},
	} {
		path := filepath.Join(t.TempDir(), "region")
		if err := os.WriteFile(path, make([]byte, test.size), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, readOnly := range []bool{false, true} {
			region, err := Open(path, Options{ReadOnly: readOnly, hooks: test.hooks})
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if region.Kind() != test.kind || region.Kind().String() != test.name || region.Durability() != test.dur || region.Align() != test.align ||
				region.Size() != test.want || region.Path() != path || region.ReadOnly() != readOnly {
				t.Errorf("%s: kind %v, %v, align %d, size %d, path %s", test.name, region.Kind(), region.Durability(), region.Align(), region.Size(), region.Path())
			}
			if !readOnly {
				if err := region.NTStore(test.want-5, []byte("12345")); err != nil {
					t.Error(err)
				}
				if err := region.Sync(test.want-5, 5); err != nil {
					t.Error(err)
				}
			}
			if end := string(region.Bytes(test.want-5, 5)); end != "12345" {
				t.Errorf("%s: found %q", test.name, end)
			}
			if err := region.Close(); err != nil {
				t.Error(err)
			}
			if err := region.Close(); err != nil {
				t.Error("closed again:", err)
			}
		}
	}
}

// TestOpenRealTmpfs opens a file on a real tmpfs, without hooks.
func TestOpenRealTmpfs(t *testing.T) {
	path := "/dev/shm/pmem-test-region"
	var fs unix.Statfs_t
	if unix.Statfs("/dev/shm", &fs) != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Skip("no tmpfs")
	}
	defer os.Remove(path)
	if err := Create(path, 4<<20, false); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Kind() != KindTmpfs || r.Durability() != Volatile {
		t.Errorf("kind %v, %v", r.Kind(), r.Durability())
	}
	if err := errors.Join(r.Store8(0, 1), r.FlushFence(0, 8), r.Sync(0, 8)); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "sock")
	listener, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	block := Options{hooks: hooks{stat: func(st *unix.Stat_t) { st.Mode = unix.S_IFBLK | 0o600 }}}
	for _, test := range []struct {
		path string
		o    Options
		is   error
		says string
	}{
		{dir, Options{}, ErrNotRegion, "a directory"},
		{fifo, Options{}, ErrNotRegion, "a pipe"},
		{sock, Options{}, ErrNotRegion, "a socket"},
		{"/dev/null", Options{}, ErrNotRegion, "1:3, which is not device-dax"},
		{file("block", 4096), block, ErrNotRegion, "a block device; use a file"},
		{file("empty", 0), Options{}, ErrTooSmall, "has 0 bytes, at least 4096"},
		{file("small", 4095), Options{}, ErrTooSmall, "has 4095 bytes"},
		{file("shared", 4096), Options{Shared: true}, nil, "only be shared read-only"},
		{filepath.Join(dir, "none"), Options{}, os.ErrNotExist, "none"},
	} {
		region, err := Open(test.path, test.o)
		if err == nil {
			region.Close()
			t.Errorf("%s was opened", test.path)
			continue
		}
		if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), test.path) {
			t.Errorf("%s: error %v", test.path, err)
		}
	}
}

func TestLock(t *testing.T) {
	r := newFile(t, 8192)
	for _, ro := range []bool{false, true} {
		if _, err := Open(r.Path(), Options{ReadOnly: ro}); !errors.Is(err, ErrBusy) {
			t.Errorf("second open, read-only %v: error %v", ro, err)
		}
	}
	if err := Create(r.Path(), 1<<20, false); !errors.Is(err, ErrBusy) {
		t.Errorf("resized in use: error %v", err)
	}
	if r.CheckSize(8192) != nil || r.CheckSize(8193) == nil {
		t.Error("size changed")
	}
	info, err := Open(r.Path(), Options{ReadOnly: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	r.Store(0, []byte("seen"))
	if !bytes.Equal(info.Bytes(0, 4), []byte("seen")) {
		t.Error("a shared region does not show what is stored")
	}
	r.Close()
	// A region opened Shared does not prevent another Open.
	again, err := Open(r.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	info.Close()
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "region")
	stat := func() (info unix.Stat_t) {
		t.Helper()
		if err := unix.Stat(path, &info); err != nil {
			t.Fatal(err)
		}
		return info
	}
	if err := Create(path, 1<<20, true); err != nil {
		t.Fatal(err)
	}
	if info := stat(); info.Size != 1<<20 || info.Blocks != 0 {
		t.Errorf("sparse: %d bytes, %d blocks", info.Size, info.Blocks)
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	file.WriteAt([]byte("keep me"), 100)
	file.Close()
	if err := Create(path, 2<<20, false); err != nil {
		t.Fatal(err)
	}
	if info := stat(); info.Size != 2<<20 || info.Blocks < 4096 {
		t.Errorf("allocated: %d bytes, %d blocks", info.Size, info.Blocks)
	}
	if err := Create(path, 2<<20, true); err != nil {
		t.Error("same size:", err)
	}
	if err := Create(path, 1<<20, false); !errors.Is(err, ErrWouldShrink) {
		t.Errorf("shrink: error %v", err)
	}
	// A size that the filesystem does not have, or cannot represent.
	if err := Create(path, 1<<60, false); err == nil || stat().Size != 2<<20 {
		t.Errorf("too large: error %v, size %d", err, stat().Size)
	}
	content, err := os.ReadFile(path)
	if err != nil || len(content) != 2<<20 || string(content[100:107]) != "keep me" {
		t.Errorf("content lost, error %v", err)
	}
	fresh := filepath.Join(dir, "fresh")
	if err := Create(fresh, 1<<60, false); err == nil {
		t.Error("too large was created")
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		t.Error("the failed one was left behind")
	}
	for _, size := range []int64{0, -4096, 100, 4097} {
		if err := Create(fresh, size, false); !errors.Is(err, ErrTooSmall) {
			t.Errorf("size %d: error %v", size, err)
		}
	}
	for _, bad := range []string{dir, "/dev/null"} {
		if err := Create(bad, 4096, false); !errors.Is(err, ErrNotRegion) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

// TestCreateNoSpace fills a small tmpfs. It needs root.
func TestCreateNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "region")
	err := Create(path, 4<<20, false)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "free") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was left behind")
	}
	// A sparse file on a full disk: the store fails, and the process goes on.
	if err := Create(path, 4<<20, true); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	skipEmulated(t, "SIGBUS comes without its address")
	var m MediaError
	if err := r.NTZero(0, 4<<20); !errors.Is(err, ErrMedia) || !errors.As(err, &m) || m.Cause != CauseNoStorage || !strings.Contains(err.Error(), "full") {
		t.Errorf("store on a full disk: error %v", err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	if err := r.Load(8192, make([]byte, 1)); !errors.As(err, &m) || m.Cause != CauseTruncated {
		t.Errorf("load behind the end of a truncated file: error %v", err)
	}
}

// TestOpenRealHugetlb needs huge pages and root.
func TestOpenRealHugetlb(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "hugetlbfs", 0, "pagesize=2M"); err != nil {
		t.Skip(err)
	}
	defer exec.Command("umount", "-l", dir).Run()
	path := filepath.Join(dir, "region")
	if err := Create(path, 4<<20, false); err != nil {
		t.Skip("no huge pages reserved:", err)
	}
	r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Kind() != KindHugetlb || r.Align() != 2<<20 {
		t.Errorf("kind %v, align %d", r.Kind(), r.Align())
	}
	if err := errors.Join(r.NTZero(0, 4<<20), r.Store8(2<<20, 1), r.FlushFence(2<<20, 8)); err != nil {
		t.Error(err)
	}
}
