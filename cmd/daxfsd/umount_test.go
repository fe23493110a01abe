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
		t.Errorf("nobody holds it: %v", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := waitFree(p, 42, 50*time.Millisecond); err == nil {
		t.Error("it is locked, and was found free")
	}
	fd, done := int(f.Fd()), make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { unix.Flock(fd, unix.LOCK_UN); close(done) })
	if err := waitFree(p, 42, 10*time.Second); err != nil {
		t.Error(err)
	}
	<-done
	if err := waitFree(p+".gone", 0, time.Second); err != nil {
		t.Errorf("a region that is gone: %v", err)
	}
}
