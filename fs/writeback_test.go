package fs_test

import (
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// TestWritebackIsAllOrAnError checks that a kernel's writeback that finds too little space returns
// an error even if a part was written, and that the whole write is retried if space may have become
// free.
func TestWritebackIsAllOrAnError(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino, fill, gone := v.Create("/f"), v.Create("/fill"), v.Create("/gone")
	v.Write(gone, 0, make([]byte, 2<<20))
	for off := int64(0); ; off += 256 << 10 {
		if n, e := v.FS.Write(&v.Ctx, fill, off, make([]byte, 256<<10)); e != 0 || n < 256<<10 {
			break
		}
	}
	a := v.Stat(fill)
	v.Truncate(fill, a.Size-8*4096)
	data := make([]byte, 1<<20)
	write := func(noWait bool, want syscall.Errno) {
		t.Helper()
		if _, e := v.FS.Write(&fs.Caller{NoWait: noWait, Writeback: true}, ino, 0, data); e != want {
			t.Errorf("%v, want %v", e, want)
		}
	}
	write(true, syscall.ENOSPC)
	v.Truncate(ino, 0)
	v.Unlink("/gone") // still open: its space becomes free later
	write(true, syscall.EAGAIN)
	write(false, syscall.ENOSPC)
	v.Truncate(ino, 0)
	v.FS.Forget(gone, 1)
	write(false, 0)
}
