package fs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// TestGrantPassOn has the lease of a file pass on and on among programs that overlap: each one gets
// its grant before the one before ends. The file is then deleted while all of them map it, and
// others take the space that comes back. Nothing is lost under a lease, and nothing is leaked.
func TestGrantPassOn(t *testing.T) {
	const programs, blocks = 4, 32
	grants := 100_000
	if testing.Short() {
		grants = 10_000
	}
	v := newGranting(t, 16<<20)
	free := v.Free()
	const perFile = 2500
	for round := range grants / perFile {
		path := fmt.Sprint("/f", round)
		ino := v.Create(path)
		v.Write(ino, 0, bytes.Repeat([]byte{1 + byte(round)}, blocks*4096))
		var last [programs]*lease.Grant
		var wg sync.WaitGroup
		for p := range programs {
			wg.Add(1)
			go func() {
				defer wg.Done()
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(p)))
				d, ctx := v.FS.Direct(), &fs.Caller{Lane: uint32(p), UID: uint32(p)}
				for range perFile / programs {
					lo := rnd.Uint64N(blocks)
					q := &fs.GrantQuery{Lo: lo, Hi: lo + 1 + rnd.Uint64N(blocks-lo), Write: rnd.IntN(2) == 0, Most: 100, Handle: uint64(p) + 1}
					g, _, e := d.Grant(ctx, ino, q)
					for tries := 0; e == syscall.ENOLCK && tries < 50; tries++ { // more end in a moment than are looked at
						time.Sleep(5 * time.Millisecond)
						g, _, e = d.Grant(ctx, ino, q)
					}
					if e != 0 {
						t.Errorf("grant: %v", e)
						return
					}
					v.locks.Use(g, layout.BlockSize, 1)
					if e := d.Confirm(ctx, ino, g.ID, g.Generation); e != 0 {
						t.Errorf("confirm: %v", e)
						return
					}
					if old := last[p]; old != nil {
						v.locks.Use(old, layout.BlockSize, -1)
						if rnd.IntN(2) == 0 {
							d.Release(ino, old.ID)
						}
					}
					last[p] = g
				}
			}()
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		v.Delete(path)
		other := v.Create("/other")
		v.Write(other, 0, bytes.Repeat([]byte{255}, 1<<20))
		for _, g := range last {
			if b := v.bytesOf(g); len(bytes.Trim(b, string(rune(1+round)))) != 0 {
				t.Fatalf("round %d: a program's blocks have changed after the file was deleted", round)
			}
			v.locks.Use(g, layout.BlockSize, -1)
		}
		v.Delete("/other")
	}
	v.FS.AwaitDeleted(&v.Ctx)
	for range 3 {
		if err := v.FS.Direct().Sweep(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease.Quarantine)
	}
	if n := v.FS.Stats().DeferredFrees; n != 0 {
		t.Errorf("%d bytes are deferred after the last lease", n)
	}
	if n := v.Free(); n < free-2 {
		t.Errorf("%d blocks are free in the end, %d before", n, free)
	}
	v.Remount()
}
