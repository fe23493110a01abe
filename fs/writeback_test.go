package fs_test

import (
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// A write of the kernel's writeback for which there is not enough space is an error even if a
// part of it found some; and if some may have become free, all of it is tried again.
func TestWritebackIsAllOrAnError(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino, fill, gone := v.create(1, "f"), v.create(1, "fill"), v.create(1, "gone")
	v.write(gone, 0, make([]byte, 2<<20))
	for off := int64(0); ; off += 256 << 10 {
		if n, e := v.fs.Write(&v.ctx, fill, off, make([]byte, 256<<10)); e != 0 || n < 256<<10 {
			break
		}
	}
	var a fs.Attr
	v.ok(v.fs.GetAttr(&v.ctx, fill, &a))
	v.ok(v.fs.SetAttr(&v.ctx, fill, &fs.SetAttr{Valid: fs.SetSize, Size: a.Size - 8*4096}, &a))
	data := make([]byte, 1<<20)
	write := func(noWait bool, want syscall.Errno) {
		t.Helper()
		if _, e := v.fs.Write(&fs.Caller{NoWait: noWait, Writeback: true}, ino, 0, data); e != want {
			t.Errorf("%v, want %v", e, want)
		}
	}
	write(true, syscall.ENOSPC)
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize}, &a))
	v.ok(v.fs.Unlink(&v.ctx, 1, "gone")) // still open: its space is on its way
	write(true, syscall.EAGAIN)
	write(false, syscall.ENOSPC)
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize}, &a))
	v.fs.Forget(gone, 1)
	write(false, 0)
}
