package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWaitFree(t *testing.T) {
	p := filepath.Join(t.TempDir(), "region")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := waitFree(p, 0, time.Second); err != nil {
		t.Errorf("no process holds it: %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	pid := os.Getpid()
	if err := waitFree(p, pid, 50*time.Millisecond); err == nil {
		t.Error("it is locked, and was found free")
	}
	if err := waitFree(p, pid+1, time.Minute); err != nil {
		t.Errorf("another process has the region now: %v", err)
	}
	fd, done := int(f.Fd()), make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { unix.Flock(fd, unix.LOCK_UN); close(done) })
	if err := waitFree(p, pid, 10*time.Second); err != nil {
		t.Error(err)
	}
	<-done
	if err := waitFree(p+".gone", 0, time.Second); err != nil {
		t.Errorf("a region that is gone: %v", err)
	}
}

// TestFoundRegion checks that only what can be a region is opened. The source in a mount table may
// be anything, because any user of fusermount3 chooses it.
func TestFoundRegion(t *testing.T) {
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, nil)
	for path, want := range map[string]bool{fifo: false, file: true, dir: false, "/dev/null": false, "/dev/zero": false} {
		f, err := find(path)
		if err != nil {
			t.Fatal(err)
		}
		if f.region() != want {
			t.Errorf("%s can be a region: %v", path, !want)
		}
		if _, err := unlocked(path); (err == nil) != want {
			t.Errorf("%s was opened: %v", path, err)
		}
	}
}

func TestFind(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file with blank")
	writeFile(t, file, nil)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	f, err := find(link)
	if err != nil || f.path != file || f.root || f.dev != st.Dev || f.ino != st.Ino || f.mode != st.Mode {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := find(filepath.Join(dir, "absent")); !os.IsNotExist(err) {
		t.Errorf("a path that leads nowhere: %v", err)
	}
	if _, err := find(""); err == nil {
		t.Error("an empty path was found")
	}
	if f, err := find("/proc"); err != nil || !f.root || f.mount.FSType != "proc" {
		t.Errorf("/proc: %+v, %v", f, err)
	}
	if got, err := resolve(filepath.Join(link, "..", "absent")); err != nil || got != filepath.Join(dir, "absent") {
		t.Errorf("resolve: %s, %v", got, err)
	}
}
