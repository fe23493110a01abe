package fs_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
)

// TestUsersLeaveRootItsReserve checks that root can still make files and write its reserve, except
// for a chunk, after a user has made empty files, directories, attributes or extents until ENOSPC.
func TestUsersLeaveRootItsReserve(t *testing.T) {
	user := fs.Caller{UID: 1000, GID: 1000}
	var a fs.Attr
	// Each makes its n-th object; the test calls it until it fails.
	for _, c := range []struct {
		name string
		make func(v *volume, n int) syscall.Errno
	}{
		{"files", func(v *volume, n int) syscall.Errno {
			e := v.FS.Mknod(&user, 1, fmt.Sprintf("%0200d", n), syscall.S_IFREG|0o644, 0, &a)
			if e == 0 {
				v.FS.Forget(a.Ino, 1)
			}
			return e
		}},
		{"directories", func(v *volume, n int) syscall.Errno {
			e := v.FS.Mkdir(&user, 1, fmt.Sprint(n), 0o755, &a)
			if e == 0 {
				d := a.Ino
				if e = v.FS.Mknod(&user, d, "f", syscall.S_IFREG|0o644, 0, &a); e == 0 {
					v.FS.Forget(a.Ino, 1)
				}
				v.FS.Forget(d, 1)
			}
			return e
		}},
		{"attributes", func(v *volume, n int) syscall.Errno {
			e := v.FS.Mknod(&user, 1, fmt.Sprint(n), syscall.S_IFREG|0o644, 0, &a)
			for i := 0; i < 8 && e == 0; i++ {
				e = v.FS.SetXattr(&user, a.Ino, fmt.Sprint("user.", i), make([]byte, 900), 0)
			}
			if a.Ino != 0 {
				v.FS.Forget(a.Ino, 1)
			}
			return e
		}},
		{"extents", func(v *volume, n int) syscall.Errno {
			e := v.FS.Mknod(&user, 1, fmt.Sprint(n), syscall.S_IFREG|0o644, 0, &a)
			for i := int64(0); i < 300 && e == 0; i++ {
				_, e = v.FS.Write(&user, a.Ino, i<<13, []byte("x"))
			}
			if a.Ino != 0 {
				v.FS.Forget(a.Ino, 1)
			}
			return e
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &volume{fstest.Format(t, fstest.Memory(t, 64<<20), fs.MkfsOptions{Reserve: 20}, fs.Options{})}
			defer v.Unmount()
			sb, n := v.Super(), 0
			for ; ; n++ {
				a = fs.Attr{}
				if e := c.make(v, n); e != 0 {
					v.expect(e, true, syscall.ENOSPC)
					break
				}
			}
			if n < 30 {
				t.Errorf("a user could make only %d", n)
			}
			var s fs.StatFS
			v.FS.StatFS(&s)
			if s.Bfree < sb.RootBlocks {
				t.Errorf("%d blocks are free, %d are for root", s.Bfree, sb.RootBlocks)
			}
			if s.Bavail > 512 { // less than a chunk of metadata may be left
				t.Errorf("a user was refused while statfs said that %d blocks are available", s.Bavail)
			}
			v.Mkdir("/root")
			ino := v.Create("/root/data")
			v.Write(ino, 0, make([]byte, (sb.RootBlocks-512)<<12)) // a chunk of the reserve is kept for metadata
			for i := range 1000 {
				v.FS.Forget(v.Create(fmt.Sprintf("/root/%0200d", i)), 1)
			}
		})
	}
}
