package fs_test

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// newLargePages is newGranting with pages of 2 MiB and 1 GiB.
func newLargePages(b testing.TB, size int64) *granting {
	locks := new(lease.Fake)
	v := &volume{fstest.Format(b, fstest.Memory(b, size), fs.MkfsOptions{}, fs.Options{Direct: fs.DirectWrite, Locks: locks})}
	return &granting{volume: v, locks: locks}
}

// BenchmarkGrantInPlace measures a grant of a GiB that is in place already, of which it asks for
// pages of a size.
func BenchmarkGrantInPlace(b *testing.B) {
	v := newLargePages(b, 5<<29)
	ino := v.Create("/f")
	v.OK(v.FS.SetFlagsAndHint(&v.Ctx, ino, 0, fs.HintPUD, nil))
	for off := int64(0); off < 1<<30; off += 16 << 20 {
		v.Write(ino, off, make([]byte, 16<<20))
	}
	for _, page := range []uint64{0, 2 << 20, 1 << 30} {
		for _, write := range []bool{false, true} {
			b.Run(fmt.Sprintf("page=%d,write=%v", page, write), func(b *testing.B) {
				for b.Loop() {
					v.ask(ino, fs.GrantQuery{Hi: 1 << 18, PageSize: page, Write: write})
				}
			})
		}
	}
	if n := v.FS.Requested(); n > 0 {
		b.Errorf("%d blocks were moved", n)
	}
}

// BenchmarkPromote measures a grant of 64 MiB in 2 MiB pages, of a file whose blocks lie apart.
func BenchmarkPromote(b *testing.B) {
	for _, piece := range []int{1, 16} {
		b.Run(fmt.Sprintf("blocks=%d", piece), func(b *testing.B) {
			const size = 64 << 20
			b.SetBytes(size)
			data := make([]byte, piece*4096)
			for b.Loop() {
				b.StopTimer()
				v := newLargePages(b, 256<<20)
				v.FS.SpendMoves()
				ino, between := v.Create("/f"), v.Create("/between")
				for i, at := range rand.New(rand.NewSource(1)).Perm(size / len(data)) {
					v.Write(ino, int64(at*len(data)), data)
					v.Write(between, int64(i)*8192, data[:1])
				}
				b.StartTimer()
				v.ask(ino, fs.GrantQuery{Hi: size / 4096, PageSize: 2 << 20})
				b.StopTimer()
				if n := v.collapsed(ino, 512); n != 32 {
					b.Fatalf("%d of 32 ranges are collapsed", n)
				}
				v.Unmount()
				b.StartTimer()
			}
		})
	}
}
