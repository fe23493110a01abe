package direct

import (
	"fmt"
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
		var why []string
		for range 5 {
			took := map[string]float64{}
			for _, w := range ways {
				var all []float64
				for range 20 {
					const n = 2000
					start := time.Now()
					for range n {
						if err := w.do(next()); err != nil {
							t.Fatalf("%s: %v", w.name, err)
						}
					}
					all = append(all, float64(time.Since(start).Nanoseconds())/n)
				}
				slices.Sort(all)
				took[w.name] = all[len(all)/4]
			}
			t.Logf("ns: %v", took)
			why = nil
			for _, c := range []struct {
				fast, slow string
				most       float64
			}{{"ReadAt", "copy", 1.3}, {"WriteAt", "store", 1.3}, {"ReadAt", "pread", 0.5}, {"WriteAt", "pwrite", 0.5}} {
				if ratio := took[c.fast] / took[c.slow]; ratio > c.most {
					why = append(why, fmt.Sprintf("%s takes %.2f times as long as %s, at most %.1f was expected", c.fast, ratio, c.slow, c.most))
				}
			}
			if len(why) == 0 {
				break
			}
		}
		for _, s := range why {
			t.Error(s)
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
