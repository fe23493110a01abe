package direct

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

// stampBlock returns a block that holds its number.
func stampBlock(i int) []byte {
	b := make([]byte, 4096)
	for k := range b {
		b[k] = byte(i >> (8 * (k & 3)))
	}
	return b
}

// TestManyExtents reads and writes a file of 100 000 extents, all of which the region's budget of
// locks does not allow: what it does not allow goes the normal way, and everything is right.
func TestManyExtents(t *testing.T) {
	const extents = 100_000
	m := harness.New(t, 600<<20, limit)
	f, err := os.Create(m.Path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range extents { // each other block is a hole
		if _, err := f.WriteAt(stampBlock(i), int64(i)*8192); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, m.Path("f"), os.O_RDWR)
	rng := rand.New(rand.NewPCG(1, 7))
	got := make([]byte, 8192)
	calls := int64(0)
	check := func(i int) {
		t.Helper()
		n, err := d.ReadAt(got, int64(i)*8192)
		if calls++; err != nil && i < extents-1 || n < 4096 || string(got[:4096]) != string(stampBlock(i)) {
			t.Fatalf("extent %d: %d bytes, %v", i, n, err)
		}
		for _, x := range got[4096:n] {
			if x != 0 {
				t.Fatalf("the hole after extent %d is not zeros", i)
			}
		}
	}
	for range 5000 {
		check(rng.IntN(extents))
	}
	t.Logf("%d of %d reads went the normal way", d.Normal(), calls)
	for range 500 {
		i := rng.IntN(extents)
		if _, err := d.WriteAt(stampBlock(i), int64(i)*8192); err != nil {
			t.Fatal(err)
		}
		check(i)
	}
	_, err = d.Map(0, extents*8192-4096, direct.MapOptions{})
	refused(t, "Map of all extents", err, direct.ErrBudget)
	d.Close()

	// A thousand of them can be mapped, and take 20 ms.
	d = open(t, m.Path("f"), os.O_RDONLY)
	best := time.Hour
	for range 5 {
		start := time.Now()
		mp, err := d.Map(0, 1000*8192, direct.MapOptions{})
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(start))
		for i := range 1000 {
			if string(mp.Bytes()[i*8192:][:4096]) != string(stampBlock(i)) || mp.Bytes()[i*8192+4096] != 0 {
				t.Fatalf("extent %d: wrong bytes in the mapping", i)
			}
		}
		mp.Close()
	}
	t.Logf("mapping 1000 extents takes %v", best)
	if best > 40*time.Millisecond { // twice as long as on an idle machine
		t.Errorf("mapping 1000 extents takes %v", best)
	}
}

// TestManyLeases makes 2000 mappings at once. Beyond the region's budget Map fails with ErrBudget,
// and reads and writes go on. When the mappings are closed, there is room again.
func TestManyLeases(t *testing.T) {
	m := harness.New(t, 64<<20, limit)
	create(t, m.Path("f"), 1, 4096*4096)
	d := open(t, m.Path("f"), os.O_RDWR)
	var all []*direct.Mapping
	defer func() {
		for _, mp := range all {
			mp.Close()
		}
	}()
	start := time.Now()
	for i := 0; ; i++ {
		mp, err := d.Map(int64(i%4096)*4096, 4096, direct.MapOptions{Write: i%2 == 0})
		if errors.Is(err, direct.ErrBudget) && i >= 2000 {
			break
		}
		if err != nil {
			t.Fatalf("mapping %d: %v", i, err)
		}
		if all = append(all, mp); len(all) == 2000 {
			t.Logf("2000 leases took %v", time.Since(start))
		}
	}
	t.Logf("%d leases", len(all))
	normal := d.Normal()
	b := make([]byte, 4096)
	if _, err := d.WriteAt(b, 8<<20); err != nil {
		t.Error(err)
	}
	if d.Normal() == normal {
		t.Error("a write was direct, though there is no room for another lease")
	}
	if _, err := d.ReadAt(b, 8<<20); err != nil || b[0] != 0 {
		t.Errorf("reading back: %d, %v", b[0], err)
	}
	for _, mp := range all {
		if err := mp.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all = nil
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		mp, err := d.Map(0, 1<<20, direct.MapOptions{Write: true})
		if err == nil {
			mp.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after all mappings were closed: %v", err)
		}
	}
}
