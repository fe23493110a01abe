package fsck_test

import (
	"fmt"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
)

// BenchmarkCheck checks an undamaged filesystem: 200 000 files of a block in 200 directories, or
// one file of 200 000 extents.
func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name string
		make func(v *fstest.Volume)
	}{
		{"files", func(v *fstest.Volume) {
			for i := range 200_000 {
				dir := fmt.Sprint("/dir", i/1000)
				if i%1000 == 0 {
					v.Mkdir(dir)
				}
				ino := v.Create(fmt.Sprint(dir, "/a file of some name ", i))
				v.Write(ino, 0, []byte{1})
				v.FS.Forget(ino, 1)
			}
		}},
		{"extents", func(v *fstest.Volume) {
			ino := v.Create("/fragmented")
			for i := range int64(200_000) {
				v.Write(ino, i<<13, []byte{1})
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			v := fstest.Format(b, fstest.Memory(b, 2<<30), fs.MkfsOptions{Now: 1e18}, fs.Options{})
			c.make(v)
			v.Unmount()
			for _, n := range []int{1, 2} {
				b.Run(fmt.Sprint("workers=", n), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if rep, err := fsck.Check(v.R, fsck.Options{Workers: n}); err != nil || len(rep.Problems) > 0 {
							b.Fatal(err, rep)
						}
					}
				})
			}
		})
	}
}
