package fsck_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/pmem"
)

// BenchmarkCheck checks a sound filesystem: 200 000 files of a block in 200 directories, and
// one file of 200 000 extents.
func BenchmarkCheck(b *testing.B) {
	ctx := &fs.Caller{}
	must := func(e syscall.Errno) {
		if e != 0 {
			b.Fatal(e)
		}
	}
	for _, c := range []struct {
		name string
		make func(f *fs.FS)
	}{
		{"files", func(f *fs.FS) {
			var d, a fs.Attr
			for i := range 200_000 {
				if i%1000 == 0 {
					must(f.Mkdir(ctx, 1, fmt.Sprint("dir", i/1000), 0o755, &d))
				}
				must(f.Mknod(ctx, d.Ino, fmt.Sprint("a file of some name ", i), syscall.S_IFREG|0o644, 0, &a))
				_, e := f.Write(ctx, a.Ino, 0, []byte{1})
				must(e)
				f.Forget(a.Ino, 1)
			}
		}},
		{"extents", func(f *fs.FS) {
			var a fs.Attr
			must(f.Mknod(ctx, 1, "fragmented", syscall.S_IFREG|0o644, 0, &a))
			for i := range int64(200_000) {
				_, e := f.Write(ctx, a.Ino, i<<13, []byte{1})
				must(e)
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			r, err := pmem.NewMemory(2 << 30)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			if _, err := fs.Mkfs(r, fs.MkfsOptions{Now: 1e18}); err != nil {
				b.Fatal(err)
			}
			f, err := fs.Mount(r, fs.Options{})
			if err != nil {
				b.Fatal(err)
			}
			c.make(f)
			if err := f.Unmount(); err != nil {
				b.Fatal(err)
			}
			for _, n := range []int{1, 2} {
				b.Run(fmt.Sprint("workers=", n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if rep, err := fsck.Check(r, fsck.Options{Workers: n}); err != nil || len(rep.Problems) > 0 {
							b.Fatal(err, rep)
						}
					}
				})
			}
		})
	}
}
