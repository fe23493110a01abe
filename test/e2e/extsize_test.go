package e2e

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestExtentSizeHint checks FS_IOC_FSSETXATTR with an extent size hint: which sizes and flags there
// are, what new files inherit, and that FS_IOC_SETFLAGS neither shows nor changes it.
func TestExtentSizeHint(t *testing.T) {
	const (
		extSize, inherit = 0x800, 0x1000 // FS_XFLAG_EXTSIZE, FS_XFLAG_EXTSZINHERIT of linux/fs.h
		nodump           = 0x40          // FS_NODUMP_FL
		xnodump          = 0x80          // FS_XFLAG_NODUMP
	)
	m := harness.New(t, 64<<20, time.Minute)
	if err := os.Mkdir(m.Path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Path("f"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	open := func(name string) int {
		f, err := os.Open(m.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		return int(f.Fd())
	}
	is := func(what string, fd int, xflags, size uint32) {
		t.Helper()
		if x, err := getFSXattr(fd); err != nil || x.Xflags != xflags || x.Extsize != size {
			t.Errorf("%s: %v, flags %#x and size %d, expected %#x and %d", what, err, x.Xflags, x.Extsize, xflags, size)
		}
	}
	f, d := open("f"), open("d")
	is("a new file", f, 0, 0)
	for _, c := range []struct {
		what         string
		fd           int
		xflags, size uint32
		want         error
		has, hasSize uint32
	}{
		{"2 MiB", f, extSize, 2 << 20, nil, extSize, 2 << 20},
		{"1 GiB, and another flag", f, extSize | xnodump, 1 << 30, nil, extSize | xnodump, 1 << 30},
		{"no multiple of a block", f, extSize, 4097, unix.EINVAL, extSize | xnodump, 1 << 30},
		{"a block", f, extSize, 4096, unix.EINVAL, extSize | xnodump, 1 << 30},
		{"4 MiB", f, extSize, 4 << 20, unix.EINVAL, extSize | xnodump, 1 << 30},
		{"a file that lets others inherit", f, inherit, 2 << 20, unix.EINVAL, extSize | xnodump, 1 << 30},
		{"a directory with a hint of its own", d, extSize, 2 << 20, unix.EINVAL, 0, 0},
		{"0", f, extSize | xnodump, 0, nil, xnodump, 0},
		{"a size without the flag", f, 0, 2 << 20, nil, 0, 0},
		{"2 MiB again", f, extSize, 2 << 20, nil, extSize, 2 << 20},
		{"a directory", d, inherit, 1 << 30, nil, inherit, 1 << 30},
	} {
		if err := setFSXattr(c.fd, fsXattr{Xflags: c.xflags, Extsize: c.size}); err != c.want {
			t.Errorf("%s: %v, expected %v", c.what, err, c.want)
		}
		is(c.what, c.fd, c.has, c.hasSize)
	}
	if err := os.WriteFile(m.Path("d/f"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(m.Path("d/d"), 0o755); err != nil {
		t.Fatal(err)
	}
	is("a new file in a directory with a hint", open("d/f"), extSize, 1<<30)
	is("a new directory in it", open("d/d"), inherit, 1<<30)

	if flags, err := unix.IoctlGetUint32(f, unix.FS_IOC_GETFLAGS); err != nil || flags != 0 {
		t.Errorf("FS_IOC_GETFLAGS: %v, %#x", err, flags)
	}
	if err := unix.IoctlSetPointerInt(f, unix.FS_IOC_SETFLAGS, nodump); err != nil {
		t.Errorf("FS_IOC_SETFLAGS: %v", err)
	}
	for _, bit := range []int{0x04000000, 0x08000000} { // where the media have the hint
		if err := unix.IoctlSetPointerInt(f, unix.FS_IOC_SETFLAGS, bit); err != unix.EOPNOTSUPP {
			t.Errorf("FS_IOC_SETFLAGS with %#x: %v", bit, err)
		}
	}
	is("after FS_IOC_SETFLAGS", f, extSize|xnodump, 2<<20)
	closeAll := func() {
		for _, f := range files {
			f.Close()
		}
		files = nil
	}
	closeAll()
	m.Again()
	is("after a remount", open("d/f"), extSize, 1<<30)
	is("after a remount", open("f"), extSize|xnodump, 2<<20)
	closeAll()
}
