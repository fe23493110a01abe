package races

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

var (
	each       = flag.Duration("each", 6*time.Millisecond, "how long a pair of operations runs on each filesystem")
	lostRounds = flag.Int("lost", 6, "number of files that TestWriteBesideStore writes")
	stopped    = flag.Int("stopped", 1, "how often each side of a pair is the first to wait for a stopped daemon")
)

// pair is two operations, at least one of which changes the file.
type pair [2]*op

func (p pair) String() string { return p[0].name + ", " + p[1].name }

// loose reports whether one operation may remove the other's changes, so that the outcome is not
// known.
func (p pair) loose() bool {
	return p[0].cuts && (p[1].cuts || p[1].appends) || p[1].cuts && (p[0].cuts || p[0].appends) || p[0].appends && p[1].appends
}

// mixed reports whether both sides of the n-th pair change the file, and one of them bypasses every
// filesystem's page cache.
func (p pair) mixed(n int) bool {
	past := func(o *op) bool { return o.direct || o.async != nil && odirect(n) }
	return p[0].step != nil && p[1].step != nil && past(p[0]) != past(p[1])
}

// odirect reports whether the asynchronous requests of the n-th pair use O_DIRECT.
func odirect(n int) bool { return n%2 == 0 }

func pairs() (all []pair) {
	for i, a := range ops {
		for _, b := range ops[i:] {
			if a.step != nil || b.step != nil {
				all = append(all, pair{a, b})
			}
		}
	}
	return all
}

// setup creates the file of a race and its two sides.
func (p pair) setup(name string, n int) (r *race, w [2]*worker, err error) {
	size := int64(page)
	if p[0].appends || p[1].appends {
		size = appendAt
	}
	if r, err = newRace(name, size); err != nil {
		return r, w, err
	}
	r.async = odirect(n)
	for i := range w {
		w[i] = &worker{r: r, off: slot * int64(1+i)}
		if p[i].cuts { // after all other slots
			w[i].off = page - slot
			if size == appendAt {
				w[i].off = 3 * slot
			}
		}
	}
	return r, w, nil
}

// verdict closes the race and returns what is wrong with the file.
func (p pair) verdict(r *race, w [2]*worker) error {
	all, err := r.contents()
	if err != nil || p.loose() {
		return err
	}
	return errors.Join(p[0].check(w[0], all), p[1].check(w[1], all))
}

// run lets both sides run freely for the duration d.
func (p pair) run(name string, n int, d time.Duration) error {
	r, w, err := p.setup(name, n)
	if err != nil {
		return err
	}
	defer r.close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := [2]error{}
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	for i := range w {
		wg.Go(func() {
			errs[i] = p[i].begin(w[i])
			defer w[i].end()
			for k := 0; errs[i] == nil && !stop.Load(); k++ {
				if p[i].appends && k == (2*page-appendAt)/8 {
					break
				}
				errs[i] = p[i].once(w[i], w[1-i], p[1-i])
			}
			if errs[i] != nil || !p[i].busy {
				stop.Store(true)
			}
		})
	}
	wg.Wait()
	if p.loose() {
		errs = [2]error{}
	}
	return errors.Join(errs[0], errs[1], p.verdict(r, w))
}

// TestPairs runs all pairs of operations freely.
func TestPairs(t *testing.T) {
	for _, f := range filesystems {
		t.Run(f.name, func(t *testing.T) {
			dir, _ := f.up(t)
			for n, p := range pairs() {
				if err := p.run(filepath.Join(dir, "f"), n, *each); err != nil {
					f.report(t, p, n, err)
				}
			}
		})
	}
}

// TestStopped makes both sides of each pair wait for a stopped daemon.
func TestStopped(t *testing.T) {
	// The garbage collector is off: a thread that waits for a page fault cannot be stopped for a
	// collection, and the goroutine that continues the daemon cannot run during one.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // a thread in a page fault keeps one of Go's processors
	for _, f := range filesystems {
		if f.control != nil {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			dir, pid := f.up(t)
			for n, p := range pairs() {
				for k := range *stopped * 2 {
					if err := p.stop(filepath.Join(dir, "f"), pid, n, k); err != nil {
						f.report(t, p, n, err)
						break
					}
				}
			}
		})
	}
}

// stop starts one operation of each side while the daemon is stopped, and then continues the
// daemon. k determines which side is first.
func (p pair) stop(name string, pid, n, k int) error {
	r, w, err := p.setup(name, n)
	if err != nil {
		return err
	}
	defer r.close()
	var ready, wg sync.WaitGroup
	errs := [2]error{}
	gate := [2]chan bool{make(chan bool), make(chan bool)}
	ready.Add(2)
	for i := range w {
		wg.Go(func() {
			err := p[i].begin(w[i])
			defer w[i].end()
			ready.Done()
			<-gate[i]
			if err == nil {
				err = p[i].once(w[i], w[1-i], p[1-i])
			}
			errs[i] = err
		})
	}
	ready.Wait()
	if err := harness.Signal(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("stopping the daemon: %w", err)
	}
	first := k % 2
	close(gate[first])
	time.Sleep(500 * time.Microsecond)
	close(gate[1-first])
	time.Sleep(500 * time.Microsecond)
	if err := harness.Signal(pid, unix.SIGCONT); err != nil {
		return fmt.Errorf("letting the daemon go on: %w", err)
	}
	wg.Wait()
	return errors.Join(errs[0], errs[1], p.verdict(r, w))
}
