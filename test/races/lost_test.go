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
	race, err := newRace(name, size)
	if err != nil {
		return 0, err
	}
	defer race.close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(1); !stop.Load(); i++ {
			store(race.m, 0, i)
		}
	})
	buf := make([]byte, 8)
	for i := range int64(200) {
		if filled(buf, uint64(i+1)); appends {
			err = exactly(8)(unix.Write(race.app, buf))
		} else {
			err = exactly(8)(unix.Pwrite(race.fd, buf, page/2+8*i))
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
	all, err := race.contents()
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
	for _, fsys := range filesystems {
		if fsys.control != nil {
			continue
		}
		t.Run(fsys.name, func(t *testing.T) {
			dir, pid := fsys.up(t)
			race, err := newRace(filepath.Join(dir, "f"), page)
			if err != nil {
				t.Fatal(err)
			}
			defer race.close()
			n := 5 * *lostRounds
			if err := unix.Ftruncate(race.fd, int64(n)*page); err != nil {
				t.Fatal(err)
			}
			mapping, err := unix.Mmap(race.fd, 0, n*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(mapping)
			const written, stored = 1024, 3072 // bytes of the page
			for i := range n {
				var wg sync.WaitGroup
				var werr error
				off := int64(i) * page
				if err := harness.Signal(pid, unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				wg.Go(func() { werr = exactly(8)(unix.Pwrite(race.fd, filled(make([]byte, 8), uint64(i+1)), off+written)) })
				time.Sleep(2 * time.Millisecond)
				wg.Go(func() { store(mapping, off+stored, uint64(i+1)) })
				time.Sleep(2 * time.Millisecond)
				if err := harness.Signal(pid, unix.SIGCONT); err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				if werr != nil {
					t.Fatal(werr)
				}
				if value := load(mapping, off+written); value != uint64(i+1) {
					t.Errorf("page %d: the mapping has %d where %d was written", i, value, i+1)
				}
			}
			if err := unix.Msync(mapping, unix.MS_SYNC); err != nil {
				t.Fatal(err)
			}
			words, direct := make([]byte, 16), aligned(page)
			for i := range n {
				want := filled(make([]byte, 8), uint64(i+1))
				_, err1 := unix.Pread(race.direct, direct, int64(i)*page) // a direct read writes back dirty pages first
				_, err2 := unix.Pread(race.fd, words[:8], int64(i)*page+written)
				_, err3 := unix.Pread(race.fd, words[8:], int64(i)*page+stored)
				if err1 != nil || err2 != nil || err3 != nil {
					t.Fatal(err1, err2, err3)
				}
				if !bytes.Equal(words[:8], want) || !bytes.Equal(words[8:], want) {
					t.Errorf("page %d: %x was written, %x stored, want %x for both", i, words[:8], words[8:], want)
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
	for _, fsys := range filesystems {
		t.Run(fsys.name, func(t *testing.T) {
			dir, _ := fsys.up(t)
			race, err := newRace(filepath.Join(dir, "f"), page)
			if err != nil {
				t.Fatal(err)
			}
			defer race.close()
			if _, err := unix.Pwrite(race.fd, make([]byte, pages*page), 0); err != nil {
				t.Fatal(err)
			}
			mapping, err := unix.Mmap(race.fd, 0, pages*page, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Munmap(mapping)
			var stop atomic.Bool
			var readers, writers sync.WaitGroup
			readers.Go(func() {
				seen := make([]byte, 8)
				for i := int64(0); !stop.Load(); i = (i + 7) % pages {
					_ = load(mapping, i*page)
					_, _ = unix.Pread(race.fd, seen, i*page)
				}
			})
			errs := make([]error, pages/4)
			for writer := range errs { // each has one request under way
				writers.Go(func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					async, err := newAIO()
					if err != nil {
						errs[writer] = err
						return
					}
					defer async.close()
					block := aligned(page)
					for i := uint64(1); i <= rounds; i++ {
						for index := writer * 4; index < writer*4+4 && errs[writer] == nil; index++ {
							errs[writer] = exactly(page)(async.do(true, race.direct, filled(block, i), int64(index)*page))
							if value := load(mapping, int64(index)*page); errs[writer] == nil && value != i {
								errs[writer] = fmt.Errorf("page %d: the mapping has %d when the write of %d is complete", index, value, i)
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
			buf := make([]byte, 8)
			for index := range int64(pages) {
				_, err := unix.Pread(race.fd, buf, index*page)
				if value := word(buf, 0); err != nil || value != rounds || load(mapping, index*page) != rounds {
					t.Errorf("page %d: %d by read, %d by the mapping, want %d (%v)", index, value, load(mapping, index*page), rounds, err)
				}
			}
		})
	}
}
