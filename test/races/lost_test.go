package races

import (
	"bytes"
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

// TestWriteBesideStore checks that no write is lost: while one thread stores to a page through a
// mapping, 200 records are written to other bytes of the page, each once. In the end all are there.
// So are 200 records that are appended.
func TestWriteBesideStore(t *testing.T) {
	for _, f := range filesystems {
		t.Run(f.name, func(t *testing.T) {
			dir, _ := f.up(t)
			for _, o := range ops {
				if o.name != "write" && o.name != "append" {
					continue
				}
				lost, rounds := 0, *lostRounds
				for range rounds {
					n, err := records(filepath.Join(dir, "f"), o.appends)
					if err != nil {
						t.Fatal(err)
					}
					lost += n
				}
				if lost > 0 {
					t.Errorf("%s: of %d records %d are lost", o.name, 200*rounds, lost)
				}
			}
		})
	}
}

// records writes or appends 200 records beside a storing thread, and returns how many are lost.
func records(name string, appends bool) (lost int, err error) {
	size := int64(page)
	if appends {
		size = page / 2
	}
	r, err := newRace(name, size)
	if err != nil {
		return 0, err
	}
	defer r.close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(1); !stop.Load(); i++ {
			store(r.m, 0, i)
		}
	})
	b := make([]byte, 8)
	for i := range int64(200) {
		if filled(b, uint64(i+1)); appends {
			err = exactly(8)(unix.Write(r.app, b))
		} else {
			err = exactly(8)(unix.Pwrite(r.fd, b, page/2+8*i))
		}
		if err != nil {
			break
		}
	}
	stop.Store(true)
	wg.Wait()
	if err != nil {
		return 0, err
	}
	all, err := r.contents()
	for i := range int64(200) {
		if word(all["another open"], page/2+8*i) != uint64(i+1) {
			lost++
		}
	}
	return lost, err
}

// TestFaultWhileStopped makes a write(2) and a page fault on its page wait for a stopped daemon. In
// whichever order the daemon serves them, the write must be there.
func TestFaultWhileStopped(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // see TestStopped
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	for _, f := range filesystems {
		if f.control != nil {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			dir, pid := f.up(t)
			r, err := newRace(filepath.Join(dir, "f"), page)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			n := 5 * *lostRounds
			if err := unix.Ftruncate(r.fd, int64(n)*page); err != nil {
				t.Fatal(err)
			}
			m, err := unix.Mmap(r.fd, 0, n*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(m)
			const written, stored = 1024, 3072 // bytes of the page
			for i := range n {
				var wg sync.WaitGroup
				var werr error
				at := int64(i) * page
				if err := harness.Signal(pid, unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				wg.Go(func() { werr = exactly(8)(unix.Pwrite(r.fd, filled(make([]byte, 8), uint64(i+1)), at+written)) })
				time.Sleep(2 * time.Millisecond)
				wg.Go(func() { store(m, at+stored, uint64(i+1)) })
				time.Sleep(2 * time.Millisecond)
				if err := harness.Signal(pid, unix.SIGCONT); err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				if werr != nil {
					t.Fatal(werr)
				}
				if v := load(m, at+written); v != uint64(i+1) {
					t.Errorf("page %d: the mapping has %d where %d was written", i, v, i+1)
				}
			}
			if err := unix.Msync(m, unix.MS_SYNC); err != nil {
				t.Fatal(err)
			}
			b, direct := make([]byte, 16), aligned(page)
			for i := range n {
				want := filled(make([]byte, 8), uint64(i+1))
				_, err1 := unix.Pread(r.direct, direct, int64(i)*page) // a direct read writes back dirty pages first
				_, err2 := unix.Pread(r.fd, b[:8], int64(i)*page+written)
				_, err3 := unix.Pread(r.fd, b[8:], int64(i)*page+stored)
				if err1 != nil || err2 != nil || err3 != nil {
					t.Fatal(err1, err2, err3)
				}
				if !bytes.Equal(b[:8], want) || !bytes.Equal(b[8:], want) {
					t.Errorf("page %d: %x was written, %x stored, want %x for both", i, b[:8], b[8:], want)
				}
			}
		})
	}
}

// TestAsyncLeavesNoOldPage checks that the page cache keeps no old bytes: with many asynchronous
// O_DIRECT writes under way, other threads read the same pages into the page cache. In the end the
// cache must hold what was written.
func TestAsyncLeavesNoOldPage(t *testing.T) {
	const pages, rounds = 64, 12
	for _, f := range filesystems {
		t.Run(f.name, func(t *testing.T) {
			dir, _ := f.up(t)
			r, err := newRace(filepath.Join(dir, "f"), page)
			if err != nil {
				t.Fatal(err)
			}
			defer r.close()
			if _, err := unix.Pwrite(r.fd, make([]byte, pages*page), 0); err != nil {
				t.Fatal(err)
			}
			m, err := unix.Mmap(r.fd, 0, pages*page, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(m)
			var stop atomic.Bool
			var readers, writers sync.WaitGroup
			readers.Go(func() {
				b := make([]byte, 8)
				for i := int64(0); !stop.Load(); i = (i + 7) % pages {
					_ = load(m, i*page)
					_, _ = unix.Pread(r.fd, b, i*page)
				}
			})
			errs := make([]error, pages/4)
			for w := range errs { // each has one request under way
				writers.Go(func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					a, err := newAIO()
					if err != nil {
						errs[w] = err
						return
					}
					defer a.close()
					b := aligned(page)
					for i := uint64(1); i <= rounds; i++ {
						for p := w * 4; p < w*4+4 && errs[w] == nil; p++ {
							errs[w] = exactly(page)(a.do(true, r.direct, filled(b, i), int64(p)*page))
							if v := load(m, int64(p)*page); errs[w] == nil && v != i {
								errs[w] = fmt.Errorf("page %d: the mapping has %d when the write of %d is complete", p, v, i)
							}
						}
					}
				})
			}
			writers.Wait()
			stop.Store(true)
			readers.Wait()
			for _, err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
			b := make([]byte, 8)
			for p := range int64(pages) {
				_, err := unix.Pread(r.fd, b, p*page)
				if v := word(b, 0); err != nil || v != rounds || load(m, p*page) != rounds {
					t.Errorf("page %d: %d by read, %d by the mapping, want %d (%v)", p, v, load(m, p*page), rounds, err)
				}
			}
		})
	}
}
