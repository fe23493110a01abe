package fs_test

import (
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// TestMappers checks that a file counts as mapped only while it is open with a mode that allows
// stores through a mapping, and that a superfluous release does not affect a later open.
func TestMappers(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	var a fs.Attr
	v.OK(v.FS.Mknod(&v.Ctx, 1, "f", syscall.S_IFREG|0o600, 0, &a)) // the lookup reference is kept
	ino := a.Ino
	is := func(want bool, what string) {
		t.Helper()
		if got := v.FS.MayBeMapped(ino); got != want {
			t.Errorf("%s: it may be mapped: %v", what, got)
		}
	}
	open := func(flags uint32) {
		t.Helper()
		if _, e := v.FS.Open(&v.Ctx, ino, flags); e != 0 {
			t.Fatal(e)
		}
	}
	release := func(flags uint32) {
		t.Helper()
		if e := v.FS.Release(&v.Ctx, ino, flags); e != 0 {
			t.Fatal(e)
		}
	}
	is(false, "made")
	open(syscall.O_RDONLY)
	open(syscall.O_WRONLY | syscall.O_APPEND)
	is(false, "open for reading, and for writing")
	open(syscall.O_RDWR)
	v.FS.Opened(ino, syscall.O_RDWR|syscall.O_CREAT)
	v.FS.Opened(ino, syscall.O_WRONLY|syscall.O_CREAT)
	release(syscall.O_RDONLY)
	release(syscall.O_WRONLY)
	release(syscall.O_RDWR | syscall.O_NONBLOCK)
	is(true, "one of two is left")
	release(syscall.O_RDWR)
	is(false, "all are gone")
	release(syscall.O_RDWR)
	open(syscall.O_RDWR)
	is(true, "after a release too many")
}
