package pagecache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestBreak checks the order of a break: new holders are refused, holders in the range are asked
// once, and the break waits for them or for its context.
func TestBreak(t *testing.T) {
	var l Layout
	asked := 0
	h, err := l.Hold(10, 20, func() { asked++ })
	if err != nil {
		t.Fatal(err)
	}
	other, _ := l.Hold(20, 30, func() { t.Error("a holder of another range was asked") })
	now, cancel := context.WithCancel(context.Background())
	cancel()
	end, held := l.Break(now, 19, 20)
	if held != 1 || asked != 1 {
		t.Errorf("%d held, asked %d times", held, asked)
	}
	if _, err := l.Hold(0, 20, nil); !errors.Is(err, ErrBreaking) {
		t.Errorf("a new holder: %v", err)
	}
	if beside, err := l.Hold(0, 19, nil); err != nil {
		t.Errorf("a holder beside the break: %v", err)
	} else {
		beside.Release()
	}
	end2, held := l.Break(now, 12, 13) // breaks may overlap
	if held != 1 || asked != 1 {
		t.Errorf("%d held, asked %d times", held, asked)
	}
	end2()
	done := make(chan int)
	go func() {
		end, held := l.Break(context.Background(), 15, 16)
		end()
		done <- held
	}()
	select {
	case <-done:
		t.Error("a break did not wait")
	case <-time.After(10 * time.Millisecond):
	}
	h.Release()
	if held := <-done; held != 0 {
		t.Errorf("%d held", held)
	}
	end()
	if _, err = l.Hold(10, 20, nil); err != nil {
		t.Errorf("after the break: %v", err)
	}
	other.Release()
	for _, f := range []func(){end, other.Release} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("ended twice without a panic")
				}
			}()
			f()
		}()
	}
}

// TestBreakStress checks that no holder has a part of a range during a break that has waited for
// all of them.
func TestBreakStress(t *testing.T) {
	var l Layout
	var holds [64]atomic.Int32
	var wg sync.WaitGroup
	var granted, broken atomic.Int32
	stop := time.Now().Add(300 * time.Millisecond)
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for time.Now().Before(stop) {
				lo := r.Uint64N(60)
				hi := lo + 1 + r.Uint64N(4)
				if g < 3 {
					leave := make(chan struct{})
					h, err := l.Hold(lo, hi, func() { close(leave) })
					if err != nil {
						continue
					}
					granted.Add(1)
					for b := lo; b < hi; b++ {
						holds[b].Add(1)
					}
					select {
					case <-leave:
					case <-time.After(time.Millisecond):
					}
					for b := lo; b < hi; b++ {
						holds[b].Add(-1)
					}
					h.Release()
					continue
				}
				end, held := l.Break(context.Background(), lo, hi)
				for b := lo; b < hi; b++ {
					if n := holds[b].Load(); n != 0 || held != 0 {
						t.Errorf("block %d has %d holders within a break", b, n)
					}
				}
				broken.Add(1)
				end()
			}
		}()
	}
	wg.Wait()
	if granted.Load() < 50 || broken.Load() < 50 {
		t.Errorf("only %d holds and %d breaks", granted.Load(), broken.Load())
	}
}
