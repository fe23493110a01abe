package fs_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// TestLongAttributesHaveABudget checks that long lists of attributes and long access control lists
// take the memory of a few, however many files in use have them.
func TestLongAttributesHaveABudget(t *testing.T) {
	const budget = 16
	files := 96
	if testing.Short() {
		files = 40
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	v := newVolume(t, 256<<20)
	var a fs.Attr
	buf := make([]byte, 64<<10)
	for _, c := range []struct {
		name   string
		make   func(ino uint64)
		use    func(ino uint64)
		expect int64 // bytes
	}{
		{"attributes", func(ino uint64) {
			for i := range 100 {
				v.SetXattr(ino, fmt.Sprintf("user.%0200d", i), buf[:500])
			}
		}, func(ino uint64) {
			_, e := v.FS.ListXattr(&v.Ctx, ino, buf)
			v.OK(e)
			n, e := v.FS.GetXattr(&v.Ctx, ino, fmt.Sprintf("user.%0200d", 7), buf)
			if v.OK(e); n != 500 {
				t.Errorf("an attribute of 500 bytes has %d", n)
			}
		}, budget * 256 << 10},
		{"access control lists", func(ino uint64) {
			acl := binary.LittleEndian.AppendUint32(nil, 2)
			add := func(tag uint16, id uint32) {
				acl = binary.LittleEndian.AppendUint16(acl, tag)
				acl = binary.LittleEndian.AppendUint16(acl, 7)
				acl = binary.LittleEndian.AppendUint32(acl, id)
			}
			const none = 1<<32 - 1
			add(1, none) // the owner
			for i := range uint32(4000) {
				add(2, i) // a user
			}
			add(4, none)  // the group
			add(16, none) // the mask
			add(32, none) // others
			v.SetXattr(ino, "system.posix_acl_default", acl)
		}, func(ino uint64) {
			v.OK(v.FS.Mknod(&v.Ctx, ino, "f", syscall.S_IFREG|0o644, 0, &a))
			v.OK(v.FS.Unlink(&v.Ctx, ino, "f"))
			v.FS.Forget(a.Ino, 1)
		}, budget * 32 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			var inos []uint64
			for i := range files {
				ino := v.Mkdir(fmt.Sprint("/", c.name, i))
				c.make(ino)
				inos = append(inos, ino)
				c.use(ino)
			}
			few := heap()
			for range 2 {
				for _, ino := range inos {
					c.use(ino)
				}
			}
			many := heap()
			for _, ino := range inos {
				v.FS.Forget(ino, 1)
			}
			gone := heap()
			t.Logf("in use: %d KiB more than when they were made; gone: %d KiB less", (many-few)>>10, (many-gone)>>10)
			if many-gone > c.expect {
				t.Errorf("%d bytes for %d files in use, expected %d at most", many-gone, files, c.expect)
			}
		})
	}
}
