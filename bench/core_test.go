package bench_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
)

// newVolume returns a filesystem of size bytes in memory, as mkfs and mount make it.
func newVolume(b *testing.B, size int64) *fstest.Volume {
	b.Helper()
	b.ReportAllocs()
	return fstest.Format(b, fstest.Memory(b, size), fs.MkfsOptions{}, fs.Options{Clock: fstest.RealTime})
}

// create makes a file of size bytes, a multiple of 1 MiB.
func create(v *fstest.Volume, path string, size int64) (ino uint64) {
	ino = v.Create(path)
	for off := int64(0); off < size; off += 1 << 20 {
		v.Write(ino, off, make([]byte, 1<<20))
	}
	return ino
}

func BenchmarkRead4K(b *testing.B) {
	v := newVolume(b, 64<<20)
	ino := create(v, "/a", 1<<20)
	for b.Loop() {
		r := v.FS.NewPinnedRead()
		if e := v.FS.Read(&v.Ctx, ino, 8192, 4096, r); e != 0 {
			b.Fatal(e)
		}
		r.Done()
		r.Free()
	}
}

func BenchmarkOverwrite4K(b *testing.B) {
	v := newVolume(b, 64<<20)
	ino := create(v, "/a", 1<<20)
	data := make([]byte, 4096)
	for b.Loop() {
		if _, e := v.FS.Write(&v.Ctx, ino, 8192, data); e != 0 {
			b.Fatal(e)
		}
	}
}

func BenchmarkCreateUnlink(b *testing.B) {
	v := newVolume(b, 64<<20)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("f", i%1000)
		var a fs.Attr
		e := v.FS.Mknod(&v.Ctx, 1, name, syscall.S_IFREG, 0, &a)
		if e == 0 {
			e = v.FS.Unlink(&v.Ctx, 1, name)
		}
		if e != 0 {
			b.Fatal(e)
		}
		v.FS.Forget(a.Ino, 1)
	}
}

// BenchmarkLookup looks up a name of one line, one of several lines, and a missing one in a
// directory of 1000 names.
func BenchmarkLookup(b *testing.B) {
	v := newVolume(b, 64<<20)
	long := "a name that is long enough to take more than one line of the directory, "
	for i := range 500 {
		v.Create(fmt.Sprint("/f", i))
		v.Create(fmt.Sprint("/", long, i))
	}
	for _, bc := range []struct {
		name, look string
		want       syscall.Errno
	}{{"short", "f77", 0}, {"long", long + "77", 0}, {"missing", "missing", syscall.ENOENT}} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var a fs.Attr
				if e := v.FS.Lookup(&v.Ctx, 1, bc.look, &a); e != bc.want {
					b.Fatal(e)
				}
				v.FS.Forget(a.Ino, 1)
			}
		})
	}
}

// BenchmarkReadDir lists a directory of 1000 names.
func BenchmarkReadDir(b *testing.B) {
	v := newVolume(b, 64<<20)
	for i := range 1000 {
		v.Create(fmt.Sprint("/f", i))
	}
	for b.Loop() {
		n := 0
		if e := v.FS.ReadDir(&v.Ctx, 1, 0, func(*fs.Dirent) bool { n++; return true }); e != 0 || n != 1002 {
			b.Fatal(n, e)
		}
	}
}
