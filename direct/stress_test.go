package direct

import (
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// TestConcurrent reads and writes from several goroutines while the layout changes. Each layout has
// other blocks, all bytes of which are its number; a read that begins after a change sees that
// layout or a later one, wholly.
func TestConcurrent(t *testing.T) {
	const size, layouts = 16 * 4096, 60
	f := newFake(t, "", 16*mib)
	var current, done atomic.Uint32
	set := func(i uint32) {
		// Blocks are not used again before 16 layouts later: a lease keeps them longer in truth.
		region := int64(1+i%128) * 16 * 4096
		f.fill(region, byte(i), size)
		f.set(size, protocol.Extent{Offset: 0, Region: uint64(region), Length: size})
		current.Store(i)
	}
	set(1)
	d := f.mustOpen(os.O_RDWR)
	var wg sync.WaitGroup
	var direct atomic.Int64
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 5))
			b := make([]byte, 8192)
			for done.Load() == 0 {
				first := current.Load()
				n := 1 + rng.IntN(len(b))
				if _, err := d.ReadAt(b[:n], int64(rng.IntN(size-n))); err != nil {
					t.Error(err)
					return
				}
				last := current.Load() + 1 // it is current before it is stored
				if b[0] == 0 {
					continue // the normal way
				}
				direct.Add(1)
				for i, x := range b[:n] {
					if x != b[0] || uint32(x) < first&0xff && last < 256 || uint32(x) > last&0xff && last < 256 {
						t.Errorf("byte %d of %d is %d, the first is %d, between layouts %d and %d", i, n, x, b[0], first, last)
						return
					}
				}
			}
		})
	}
	for i := uint32(2); i < layouts; i++ {
		set(i)
		for want := direct.Load() + 3; direct.Load() < want && !t.Failed(); {
			settle(d)
			time.Sleep(100 * time.Microsecond)
		}
	}
	done.Store(1)
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := f.leases(); n != 0 || mappings.Load() != 0 {
		t.Errorf("%d leases and %d mappings are left", n, mappings.Load())
	}
}

// TestCloseMeanwhile closes a file while other goroutines use it: they get its bytes or an error.
func TestCloseMeanwhile(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.fill(1*mib, 1, 1*mib)
	f.set(1*mib, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 1 * mib})
	for range 30 {
		d := f.mustOpen(os.O_RDWR)
		var wg sync.WaitGroup
		for g := range 3 {
			wg.Go(func() {
				b := make([]byte, 65536)
				for i := 0; ; i++ {
					var err error
					if g == 0 {
						b[0] = 1
						_, err = d.WriteAt(b[:1], int64(i%1000))
					} else {
						_, err = d.ReadAt(b, int64(i%1000))
					}
					if err != nil {
						return
					}
				}
			})
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if n := f.leases(); n != 0 || mappings.Load() != 0 {
			t.Fatalf("%d leases and %d mappings are left", n, mappings.Load())
		}
	}
}
