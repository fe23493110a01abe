package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// eachTransport runs a test over each transport.
func eachTransport(t *testing.T, size int64, limit time.Duration, f func(t *testing.T, m *harness.Mount)) {
	for _, name := range []string{"dev", "uring"} {
		t.Run(name, func(t *testing.T) {
			if name == "uring" {
				harness.Uring(t)
			}
			m := harness.NewWith(t, "transport="+name, size, limit)
			if out := harness.Run(t, 20*time.Second, "", nil, harness.Daxfsd, "info", m.Mountpoint); !strings.Contains(out, "transport="+name) {
				t.Fatalf("it is not mounted that way:\n%s", out)
			}
			f(t, m)
		})
	}
}

// TestTransportClients runs far more clients at once than there are places for requests. They
// create, write, read back, list and delete.
func TestTransportClients(t *testing.T) {
	eachTransport(t, 512<<20, 3*time.Minute, func(t *testing.T, mount *harness.Mount) {
		const clients, rounds = 100, 20
		var all sync.WaitGroup
		for client := range clients {
			all.Add(1)
			go func() {
				defer all.Done()
				dir := mount.Path(fmt.Sprintf("client%d", client))
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Error(err)
					return
				}
				for round := range rounds {
					name := filepath.Join(dir, fmt.Sprint("file", round))
					want := bytes.Repeat([]byte{byte(client), byte(round), 1}, []int{1, 1000, 30_000, 400_000}[(client+round)%4])
					if err := os.WriteFile(name, want, 0o644); err != nil {
						t.Error(err)
						return
					}
					if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: read %d bytes of %d: %v", name, len(got), len(want), err)
					}
					if entries, err := os.ReadDir(dir); err != nil || len(entries) != round%2+1 {
						t.Errorf("%s: %d entries, %v", dir, len(entries), err)
					}
					if round%2 == 1 {
						for _, n := range []int{round - 1, round} {
							if err := os.Remove(filepath.Join(dir, fmt.Sprint("file", n))); err != nil {
								t.Error(err)
							}
						}
					}
				}
			}()
		}
		all.Wait()
		mount.Alive()
		mount.Again()
	})
}

// TestTransportSeekStorm checks that many SEEK_DATA and SEEK_HOLE at once do not take all places
// for requests: the daemon makes the kernel write back first, which comes as further requests.
func TestTransportSeekStorm(t *testing.T) {
	eachTransport(t, 512<<20, 2*time.Minute, func(t *testing.T, m *harness.Mount) {
		const clients = 64
		var all sync.WaitGroup
		for c := range clients {
			all.Add(1)
			go func() {
				defer all.Done()
				f, err := os.OpenFile(m.Path(fmt.Sprint("sparse", c)), os.O_RDWR|os.O_CREATE, 0o644)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				const size, at = 1 << 20, 256 << 10
				if err := f.Truncate(size); err != nil {
					t.Error(err)
					return
				}
				b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Munmap(b)
				for i := range 20 {
					b[at+i*4096] = 1
					off, err := unix.Seek(int(f.Fd()), int64(i)*4096, unix.SEEK_DATA)
					if err != nil || off > at {
						t.Errorf("data is at %d at the latest, SEEK_DATA says %d, %v", at, off, err)
					}
				}
			}()
		}
		all.Wait()
		m.Alive()
	})
}

// TestTransportEnds checks that after an aborted connection, a killed daemon and an unmount, all
// under load, no client waits forever, and nothing that was acknowledged is lost.
func TestTransportEnds(t *testing.T) {
	eachTransport(t, 256<<20, 5*time.Minute, func(t *testing.T, mount *harness.Mount) {
		for _, end := range []struct {
			name string
			do   func()
		}{
			{"abort", mount.Abort},
			{"kill", mount.Kill9},
			{"kill at work", mount.Kill9AtWork},
			{"abort", mount.Abort},
		} {
			ctx, cancel := context.WithCancel(context.Background())
			var all sync.WaitGroup
			var done [16]int
			for client := range done {
				all.Add(1)
				go func() {
					defer all.Done()
					name := mount.Path(fmt.Sprint("load", client))
					for ctx.Err() == nil {
						if err := os.WriteFile(name, bytes.Repeat([]byte("load"), 30_000), 0o644); err != nil {
							return
						}
						if _, err := os.ReadFile(name); err != nil {
							return
						}
						made, err := os.Create(mount.Path(fmt.Sprintf("acknowledged-%d-%d", client, done[client])))
						if err != nil {
							return
						}
						made.Close()
						done[client]++
					}
				}()
			}
			time.Sleep(500 * time.Millisecond)
			end.do()
			ended := make(chan struct{})
			go func() { all.Wait(); close(ended) }()
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				t.Fatalf("%s: after 30 s a client still waits for an answer", end.name)
			}
			cancel()
			mount.Up()
			n := 0
			for client := range done {
				for i := range done[client] {
					n++
					if err := os.Remove(mount.Path(fmt.Sprintf("acknowledged-%d-%d", client, i))); err != nil {
						t.Errorf("%s: %v", end.name, err)
					}
				}
				_ = os.Remove(mount.Path(fmt.Sprintf("acknowledged-%d-%d", client, done[client]))) // it may not exist
			}
			if n == 0 {
				t.Errorf("%s: no client did anything before", end.name)
			}
		}
		// Unmounting under load is refused, and no client notices.
		file, err := os.Create(mount.Path("open"))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(mount.Mountpoint, 0); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("unmounting with an open file: %v", err)
		}
		if _, err := file.Write(make([]byte, 1<<20)); err != nil {
			t.Error(err)
		}
		file.Close()
		mount.Again()
		if rep := mount.Stats(); rep.ReplayedRecords != 0 {
			t.Errorf("%d records replayed after a clean unmount", rep.ReplayedRecords)
		}
	})
}
