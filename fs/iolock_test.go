package fs_test

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
)

// soon runs f, which must not wait.
func (v *volume) soon(what string, want syscall.Errno, f func() syscall.Errno) {
	v.Helper()
	done := make(chan syscall.Errno, 1)
	go func() { done <- f() }()
	select {
	case e := <-done:
		if e != want {
			v.Errorf("%s: %v, want %v", what, e, want)
		}
	case <-time.After(10 * time.Second):
		v.Fatalf("%s waits", what)
	}
}

// readBy reads 4096 bytes at a byte offset, as ctx.
func (v *volume) readBy(ctx *fs.Caller, ino uint64, off int64) syscall.Errno {
	r := v.FS.NewPinnedRead()
	defer r.Free()
	e := v.FS.Read(ctx, ino, off, 4096, r)
	if e == 0 {
		r.Done()
	}
	return e
}

// writeBy writes one byte at a byte offset, as ctx.
func (v *volume) writeBy(ctx *fs.Caller, ino uint64, off int64) syscall.Errno {
	_, e := v.FS.Write(ctx, ino, off, []byte("x"))
	return e
}

// TestLongOperationHoldsNobodyUp checks that an operation on a file's extents delays no caller that
// needs only the file's attributes or names, or other names in the same directory. A queue does not
// wait at all.
func TestLongOperationHoldsNobodyUp(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	d := v.Mkdir("/d")
	ino := v.Create("/d/long")
	v.Write(ino, 0, make([]byte, 8192))
	release := v.FS.HoldIO(ino)
	for _, wait := range []bool{false, true} {
		var a fs.Attr
		ctx := &fs.Caller{NoWait: !wait}
		name := fmt.Sprint(wait)
		v.soon("stat", 0, func() syscall.Errno { return v.FS.GetAttr(ctx, ino, &a) })
		v.soon("lookup", 0, func() syscall.Errno { return v.FS.Lookup(ctx, d, "long", &a) })
		v.soon("list", 0, func() syscall.Errno {
			return v.FS.ReadDir(ctx, d, 0, func(e *fs.Dirent) bool {
				if string(e.Name) == "long" {
					if e := v.FS.RefEntry(ctx, e, &a); e != 0 {
						t.Errorf("the file within the list: %v", e)
					}
				}
				return true
			})
		})
		v.soon("chmod", 0, func() syscall.Errno {
			return v.FS.SetAttr(ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}, &a)
		})
		v.soon("create beside", 0, func() syscall.Errno { return v.FS.Mknod(ctx, d, "new"+name, 0o600, 0, &a) })
		v.soon("link", 0, func() syscall.Errno { return v.FS.Link(ctx, ino, d, "link"+name, &a) })
		v.soon("rename", 0, func() syscall.Errno { return v.FS.Rename(ctx, d, "link"+name, 1, "moved"+name, 0) })
		v.soon("unlink", 0, func() syscall.Errno { return v.FS.Unlink(ctx, 1, "moved"+name) })
		v.soon("setxattr", 0, func() syscall.Errno { return v.FS.SetXattr(ctx, ino, "user.x", []byte("x"), 0) })
		v.soon("extents", 0, func() syscall.Errno {
			return v.FS.Extents(ctx, ino, 0, func(fs.ExtentInfo) bool { return true })
		})
		v.soon("lseek", 0, func() syscall.Errno { _, e := v.FS.Lseek(ctx, ino, 0, 3); return e })
		v.soon("read", 0, func() syscall.Errno { return v.readBy(ctx, ino, 0) })
		v.soon("write in place", 0, func() syscall.Errno { return v.writeBy(ctx, ino, 0) })
	}
	queue := &fs.Caller{NoWait: true}
	truncate := func() syscall.Errno { return v.FS.SetAttr(queue, ino, &fs.SetAttr{Valid: fs.SetSize}, new(fs.Attr)) }
	v.soon("append of a queue", syscall.EAGAIN, func() syscall.Errno { return v.writeBy(queue, ino, 8192) })
	v.soon("truncation of a queue", syscall.EAGAIN, truncate)
	release()
	v.soon("append", 0, func() syscall.Errno { return v.writeBy(queue, ino, 8192) })
	v.soon("truncation", 0, truncate)
}

// TestQueueWaitsForNoRange checks that a queue's READ and WRITE get EAGAIN if another request has
// their byte range locked.
func TestQueueWaitsForNoRange(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 8192))
	queue := &fs.Caller{NoWait: true}
	both := func(what string, off int64, want syscall.Errno) {
		t.Helper()
		v.soon("read of "+what, want, func() syscall.Errno { return v.readBy(queue, ino, off) })
		v.soon("write of "+what, want, func() syscall.Errno { return v.writeBy(queue, ino, off) })
	}
	release := v.FS.HoldRange(ino, 4096)
	both("locked bytes", 0, syscall.EAGAIN)
	both("other bytes", 4096, 0)
	release()
	both("unlocked bytes", 0, 0)
}

// TestQueueWaitsForNoRename checks that a queue does not wait for a rename between other
// directories, and that such a rename does not delay one within a directory.
func TestQueueWaitsForNoRename(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	d := v.Mkdir("/d")
	v.Create("/f")
	queue := &fs.Caller{NoWait: true}
	release := v.FS.HoldRename()
	v.soon("rename to another directory", syscall.EAGAIN, func() syscall.Errno { return v.FS.Rename(queue, 1, "f", d, "f", 0) })
	v.soon("rename within", 0, func() syscall.Errno { return v.FS.Rename(queue, 1, "f", 1, "g", 0) })
	release()
	v.soon("rename to another directory", 0, func() syscall.Errno { return v.FS.Rename(queue, 1, "g", d, "g", 0) })
}

// TestQueueLoadsNothingLarge checks that a queue gets EAGAIN for a file of many extents and a
// directory of many names until a thread that may wait has read them to DRAM.
func TestQueueLoadsNothingLarge(t *testing.T) {
	v := newVolume(t, 64<<20)
	big := v.Create("/big")
	for i := int64(0); i < 3000; i++ {
		v.Fallocate(big, 0, i*8192, 4096)
	}
	dir := v.Mkdir("/dir")
	var a fs.Attr
	for i := range 4000 {
		v.OK(v.FS.Mknod(&v.Ctx, dir, fmt.Sprint("name", i), 0o600, 0, &a))
	}
	v.Unmount()
	v.Mount()
	queue := &fs.Caller{NoWait: true}
	for _, want := range []syscall.Errno{syscall.EAGAIN, 0} {
		v.soon("stat of the file", want, func() syscall.Errno { return v.FS.GetAttr(queue, big, &a) })
		v.soon("lookup of the file", want, func() syscall.Errno { return v.FS.Lookup(queue, 1, "big", &a) })
		v.soon("lookup in the directory", want, func() syscall.Errno { return v.FS.Lookup(queue, dir, "name7", &a) })
		v.soon("create in the directory", want, func() syscall.Errno { return v.FS.Mknod(queue, dir, fmt.Sprint("new", want), 0o600, 0, &a) })
		v.soon("write to the file", want, func() syscall.Errno { return v.writeBy(queue, big, 0) })
		v.OK(v.FS.Lookup(&v.Ctx, 1, "big", &a))
		v.OK(v.FS.Lookup(&v.Ctx, 1, "dir", &a))
		v.OK(v.FS.Lookup(&v.Ctx, dir, "name1", &a))
		v.Write(big, 8192, []byte("x"))
	}
	// A removal whose directory is not read yet succeeds once it is read.
	v.OK(v.FS.Mkdir(&v.Ctx, 1, "other", 0o700, &a))
	if e := v.FS.Rmdir(queue, 1, "dir"); e != syscall.ENOTEMPTY {
		t.Errorf("rmdir: %v, want %v", e, syscall.ENOTEMPTY)
	}
}

// TestRemoveUnreadDirectory checks that an empty directory whose names are not in DRAM can be
// removed and replaced.
func TestRemoveUnreadDirectory(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	for _, n := range []string{"empty", "victim", "full", "moves"} {
		v.Mkdir("/" + n)
	}
	v.Create("/full/f")
	v.Unmount()
	v.Mount()
	if e := v.FS.Rmdir(&v.Ctx, 1, "full"); e != syscall.ENOTEMPTY {
		t.Errorf("rmdir: %v", e)
	}
	v.Rmdir("/empty")
	if e := v.FS.Rename(&v.Ctx, 1, "moves", 1, "full", 0); e != syscall.ENOTEMPTY {
		t.Errorf("rename: %v", e)
	}
	v.OK(v.FS.Rename(&v.Ctx, 1, "moves", 1, "victim", 0))
}

// TestLargeOrphan checks that the space of a large file becomes free after its last FORGET. The
// FORGET does not wait for that; an unmount does.
func TestLargeOrphan(t *testing.T) {
	v := newVolume(t, 64<<20)
	var s fs.StatFS
	free := func() uint64 { v.FS.StatFS(&s); return s.Bfree }
	before := free()
	avail := s.Bavail - 64 // without the space for the file's metadata
	fill := func() uint64 {
		ino := v.Create("/big")
		for i := int64(0); i < 3000; i++ {
			v.Fallocate(ino, 0, i*8192, 4096)
		}
		v.Unlink("/big")
		return ino
	}
	v.FS.Forget(fill(), 1)
	v.OK(v.FS.AwaitReclaim(&v.Ctx))
	if free() != before {
		t.Fatalf("%d blocks free, %d before", free(), before)
	}
	var a fs.Attr
	for range 20 { // a caller that needs the space at once gets it
		v.FS.Forget(fill(), 1)
		v.OK(v.FS.Mknod(&v.Ctx, 1, "next", 0o600, 0, &a))
		v.FS.StatFS(&s)
		v.Fallocate(a.Ino, 0, 0, int64(avail)<<12)
		v.Unlink("/next")
		v.FS.Forget(a.Ino, 1)
		v.OK(v.FS.AwaitReclaim(&v.Ctx))
	}
	v.FS.Forget(fill(), 1)
	v.Unmount()
	v.Mount()
	if got := free(); got != before {
		t.Errorf("after an unmount %d blocks free, %d before", got, before)
	}
}

// TestMovedDataIsNoHole checks that SEEK_DATA and SEEK_HOLE, which hold no lock, find no hole in
// data while a file's blocks are moved.
func TestMovedDataIsNoHole(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/f")
	const blocks = 64
	v.Write(ino, 0, make([]byte, blocks*4096))
	other := v.Create("/other")
	writer := &fs.Caller{Lane: 1}
	// Copy on write splits the extent in three, as a move does; punching and writing merge it.
	meanwhile(t, func(i int) bool {
		off := int64(i%(blocks-2)+1) * 4096
		if n, e := v.FS.CopyRange(writer, ino, off, other, off, 4096); e != 0 || n != 4096 {
			t.Errorf("sharing a block: %d, %v", n, e)
			return false
		}
		if _, e := v.FS.Write(writer, ino, off, []byte("own again")); e != 0 {
			t.Errorf("writing to a shared block: %v", e)
			return false
		}
		return true
	})
	ctx := &fs.Caller{}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for off := int64(0); off < blocks*4096; off += 4096 {
			if at, e := v.FS.Lseek(ctx, ino, off, 3); e != 0 || at != off {
				t.Fatalf("SEEK_DATA at %d: %d, %v", off, at, e)
			}
		}
		if at, e := v.FS.Lseek(ctx, ino, 0, 4); e != 0 || at != blocks*4096 {
			t.Fatalf("SEEK_HOLE: %d, %v, want the end of file", at, e)
		}
		n := uint64(0)
		v.OK(v.FS.Extents(ctx, ino, 0, func(x fs.ExtentInfo) bool { n += x.Len; return true }))
		if n != blocks {
			t.Fatalf("the extents have %d blocks, want %d", n, blocks)
		}
	}
}

// appendAndTruncate appends blocks of ones to files of 4 KiB until they have 4 MiB, truncates them
// to 4 KiB, and repeats that until the test ends. With several files each has many extents.
func (v *volume) appendAndTruncate(t *testing.T, inos ...uint64) {
	writer, data, off := &fs.Caller{Lane: 1}, bytes.Repeat([]byte{1}, 4096), int64(4096)
	meanwhile(t, func(int) bool {
		for _, ino := range inos {
			if off == 4096 {
				if e := v.FS.SetAttr(writer, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 4096}, &fs.Attr{}); e != 0 {
					t.Errorf("truncating: %v", e)
					return false
				}
			}
			if _, e := v.FS.Write(writer, ino, off, data); e != 0 {
				t.Errorf("appending: %v", e)
				return false
			}
		}
		if off += 4096; off == 4<<20 {
			off = 4096
		}
		return true
	})
}

// TestGrowingFileHasNoHole checks that SEEK_HOLE on a file that is appended to and truncated sees
// neither its new size before the data, nor the old size after it.
func TestGrowingFileHasNoHole(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 4096))
	v.appendAndTruncate(t, ino)
	ctx := &fs.Caller{}
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		size, e := v.FS.Lseek(ctx, ino, 0, 4)
		if e != 0 {
			t.Fatal(e)
		}
		// At the end of the file the answer is ENXIO; data appended since lies beyond it.
		if at, e := v.FS.Lseek(ctx, ino, size, 4); e == 0 && at == size {
			t.Fatalf("SEEK_HOLE finds a hole at %d, which is or was the end of the file", size)
		}
	}
}

// TestReadBesideTruncate checks that a read during a truncation returns the old data or less, and
// no zeros in its place.
func TestReadBesideTruncate(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, bytes.Repeat([]byte{1}, 4096))
	v.appendAndTruncate(t, ino, v.Create("/other"))
	ctx, pin := &fs.Caller{}, v.FS.NewPinnedRead()
	defer pin.Free()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if e := v.FS.Read(ctx, ino, 0, 4<<20, pin); e != 0 {
			t.Fatal(e)
		}
		got, said := bytes.Join(pin.Slices(), nil), pin.Len()
		pin.Done()
		if i := bytes.IndexByte(got, 0); i >= 0 || len(got) != said {
			t.Fatalf("a zero that was not written at %d of %d bytes, said to be %d", i, len(got), said)
		}
	}
}

// meanwhile calls step with 0, 1, ... on a goroutine until the test ends or step returns false.
func meanwhile(t *testing.T, step func(i int) bool) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; step(i); i++ {
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
}
