package direct

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/pmem"
	"github.com/daxfsd/daxfsd/test/harness"
)

// TestSpeed compares reads and writes of 4 KiB at random offsets with what they consist of, a copy
// from the same memory, and a store past the caches and a fence, and with tmpfs. It takes turns, in
// short rounds, so that other programs slow down all alike, and tries again if they did not.
func TestSpeed(t *testing.T) {
	const size = 64 << 20
	dir := harness.MemoryFS(t, "tmpfs", "size=256m")
	t.Run("mounted", func(t *testing.T) {
		m := harness.NewOn(t, filepath.Join(dir, "region"), 128<<20, limit)
		create(t, m.Path("f"), 1, size)
		create(t, filepath.Join(dir, "f"), 1, size)
		defer os.Remove(filepath.Join(dir, "f"))
		d := open(t, m.Path("f"), os.O_RDWR)
		tmpfs, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tmpfs.Close()
		mp, err := d.Map(0, size, direct.MapOptions{Write: true})
		if err != nil {
			t.Fatal(err)
		}
		defer mp.Close()
		// A region of the same kind of memory, for its primitives.
		plain := filepath.Join(dir, "plain")
		if err := pmem.Create(plain, size, true); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(plain)
		r, err := pmem.Open(plain, pmem.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		buf := make([]byte, 4096)
		x := uint64(1)
		next := func() int64 {
			x = x*6364136223846793005 + 1442695040888963407
			return int64(x>>33) % size &^ 4095
		}
		ways := []struct {
			name string
			do   func(off int64) error
		}{
			{"copy", func(off int64) error { copy(buf, mp.Bytes()[off:]); return nil }},
			{"ReadAt", func(off int64) error { _, err := d.ReadAt(buf, off); return err }},
			{"pread", func(off int64) error { _, err := tmpfs.ReadAt(buf, off); return err }},
			{"store", func(off int64) error { err := r.NTStore(off, buf); r.Fence(); return err }},
			{"WriteAt", func(off int64) error { _, err := d.WriteAt(buf, off); return err }},
			{"pwrite", func(off int64) error { _, err := tmpfs.WriteAt(buf, off); return err }},
		}
		for _, w := range ways { // each page is mapped
			for off := int64(0); off < size; off += 4096 {
				if err := w.do(off); err != nil {
					t.Fatalf("%s: %v", w.name, err)
				}
			}
		}
		want := []struct {
			fast, slow string
			most       float64
		}{{"ReadAt", "copy", 1.3}, {"WriteAt", "store", 1.3}, {"ReadAt", "pread", 0.5}, {"WriteAt", "pwrite", 0.5}}
		best := make([]float64, len(want))
		for try := 0; try < 10 && (try == 0 || slices.ContainsFunc(best, func(x float64) bool { return x > 0 })); try++ {
			took := map[string]float64{}
			for _, w := range ways {
				least := time.Hour
				for range 100 {
					start := time.Now()
					for range 400 {
						if err := w.do(next()); err != nil {
							t.Fatalf("%s: %v", w.name, err)
						}
					}
					least = min(least, time.Since(start))
				}
				took[w.name] = float64(least.Nanoseconds()) / 400
			}
			t.Logf("ns: %v", took)
			for i, c := range want { // 0: it was fast enough once
				if ratio := took[c.fast] / took[c.slow]; ratio <= c.most || try > 0 && best[i] == 0 {
					best[i] = 0
				} else if try == 0 || ratio < best[i] {
					best[i] = ratio
				}
			}
		}
		for i, c := range want {
			if best[i] > 0 {
				t.Errorf("%s takes %.2f times as long as %s, at most %.1f was expected", c.fast, best[i], c.slow, c.most)
			}
		}
		if n := d.Normal(); n != 0 {
			t.Errorf("%d calls went the normal way", n)
		}
		for _, w := range []int{1, 4} {
			if n := testing.AllocsPerRun(1000, func() {
				if err := ways[w].do(next()); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%s allocates %v times", ways[w].name, n)
			}
		}
	})
}
