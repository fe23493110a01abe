package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/internal/invariants"
)

// TestPromoteModel compares files with a model while grants promote them, programs hold leases and
// store through them, and the files are written, cut, punched, shared and allocated.
func TestPromoteModel(t *testing.T) {
	steps, seeds := 1000, int64(3)
	if testing.Short() {
		steps, seeds = 400, 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { promoteModel(t, seed, steps) })
	}
}

// settle ends all programs, and waits until what they mapped is given up.
func (v *granting) settle() {
	v.Helper()
	v.locks.DropAll()
	for range 3 {
		if err := v.FS.Direct().Sweep(); err != nil {
			v.Fatal(err)
		}
		time.Sleep(lease.Quarantine)
	}
}

func promoteModel(t *testing.T, seed int64, steps int) {
	v := newGranting(t, fs.MinSize)
	v.Unmerged = true
	rnd := rand.New(rand.NewSource(seed))
	const files, limit = 4, 5*pudBytes + 3*pmdBytes
	var inos [files]uint64
	var model [files][]byte
	for i := range inos {
		inos[i] = v.Create(fmt.Sprint("/f", i))
		if i%2 == 1 {
			v.OK(v.FS.SetFlagsAndHint(&v.Ctx, inos[i], 0, fs.Hint(1+i/2), nil))
		}
	}
	type leased struct {
		file int
		g    *lease.Grant
	}
	var leases []leased
	// has reports whether a file block still lies in a region block.
	has := func(ino, logical, block uint64) bool {
		for _, e := range v.Extents(ino) {
			if e.Logical <= logical && logical < e.Logical+e.Len {
				return e.Block+logical-e.Logical == block
			}
		}
		return false
	}
	blocks := func() (lo, hi uint64) {
		lo = uint64(rnd.Intn(limit/4096 + 3))
		return lo, lo + 1 + uint64(rnd.Intn(2*pudBlocks))
	}
	grow := func(i, size int) {
		if size > len(model[i]) {
			model[i] = append(model[i], make([]byte, size-len(model[i]))...)
		}
	}
	if seed%2 == 0 {
		v.FS.SpendMoves() // so that grants find more to do
	}
	moved := uint64(0)
	for step := range steps {
		i := rnd.Intn(files)
		ino := inos[i]
		lo, hi := blocks()
		off, n := rnd.Intn(limit), 1+rnd.Intn(1+rnd.Intn(pudBytes))
		switch k := rnd.Intn(16); k {
		case 0, 1, 2, 3: // mostly small writes
			b := make([]byte, 1+n/(1+rnd.Intn(64)))
			rnd.Read(b)
			m, e := v.FS.Write(&v.Ctx, ino, int64(off), b)
			if e != 0 && e != syscall.ENOSPC {
				t.Fatal(e)
			}
			if m > 0 {
				grow(i, off+m)
				copy(model[i][off:], b[:m])
			}
		case 4:
			size := rnd.Intn(limit)
			v.Truncate(ino, uint64(size))
			grow(i, size)
			model[i] = model[i][:size:size]
		case 5:
			v.Fallocate(ino, fs.FallocPunchHole|fs.FallocKeepSize, int64(off), int64(n))
			if off < len(model[i]) {
				clear(model[i][off:min(len(model[i]), off+n)])
			}
		case 6:
			if e := v.FS.Fallocate(&v.Ctx, ino, fs.FallocKeepSize, int64(off), int64(n)); e != 0 && e != syscall.ENOSPC {
				t.Fatal(e)
			}
		case 7:
			j := rnd.Intn(files)
			from, to := off&^4095, rnd.Intn(limit)&^4095
			if n = min(n&^4095, len(model[i])-from); n <= 0 || j == i && from < to+n && to < from+n {
				break
			}
			n &^= 4095
			m, e := v.FS.CopyRange(&v.Ctx, ino, int64(from), inos[j], int64(to), int64(n))
			if e != 0 && e != syscall.ENOSPC {
				t.Fatal(e)
			}
			if m > 0 {
				grow(j, to+int(m))
				copy(model[j][to:], model[i][from:from+int(m)])
			}
		case 8:
			if len(leases) > 6 {
				break
			}
			write := rnd.Intn(2) == 0
			g, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Lo: lo, Hi: hi, Write: write, Most: 20, Handle: 1, PageSize: uint64(rnd.Intn(3)) * pmdBytes})
			if e != 0 {
				if e != syscall.ENXIO && e != syscall.ENOSPC {
					t.Fatal(e)
				}
				break
			}
			v.locks.Use(g, 4096, 1)
			v.OK(v.FS.Direct().Confirm(&v.Ctx, ino, g.ID, g.Generation))
			leases = append(leases, leased{i, g})
		case 9, 10, 11, 12, 13:
			q := fs.GrantQuery{Lo: lo, Hi: hi, Write: k > 11, Allocate: k == 13, PageSize: pmdBytes, Most: 1000, Handle: 2}
			if rnd.Intn(2) == 0 {
				q.PageSize = pudBytes
			}
			if _, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &q); e != 0 && e != syscall.ENXIO && e != syscall.ENOSPC && e != syscall.ENOLCK {
				t.Fatal(e)
			}
			v.FS.Direct().CloseHandle(2)
		case 14:
			for j := range leases { // programs store
				if l := &leases[j]; l.g.Writable && rnd.Intn(2) == 0 && len(l.g.Parts) > 0 {
					p := l.g.Parts[rnd.Intn(len(l.g.Parts))]
					b := []byte(fmt.Sprintf("step %08d", step))
					at := p.Logical + uint64(rnd.Intn(int(p.N)))
					v.Store(int64(p.Block+at-p.Logical)*4096, b)
					if off := int(at) * 4096; has(inos[l.file], at, p.Block+at-p.Logical) && off < len(model[l.file]) {
						copy(model[l.file][off:], b)
					}
				}
			}
		case 15:
			if j := rnd.Intn(1 + len(leases)); j < len(leases) {
				v.locks.Use(leases[j].g, 4096, -1)
				if e := v.FS.Direct().Release(inos[leases[j].file], leases[j].g.ID); e != 0 && e != syscall.ENOENT {
					t.Fatal(e) // ENOENT: a sweep in the background has looked before
				}
				leases = append(leases[:j], leases[j+1:]...)
				v.FS.CollapseEnded(&v.Ctx)
			}
		}
		for j := range inos {
			if got := v.Read(inos[j], 0, 2*limit); !bytes.Equal(got, model[j]) {
				t.Fatalf("step %d: file %d has %d bytes and the model %d, or they differ", step, j, len(got), len(model[j]))
			}
		}
		moved = max(moved, v.FS.Requested())
		if step%500 == 499 && len(leases) == 0 {
			v.settle()
			v.Remount()
		}
	}
	v.settle()
	if moved < 30 {
		t.Errorf("only %d blocks were moved", moved)
	}
	v.Remount()
}

// TestPromoteStress promotes files while others write, read, cut and delete them, and while
// programs hold leases. Each word that is read must be the file's own stamp or zero, of leased
// blocks, too.
func TestPromoteStress(t *testing.T) {
	v := newGranting(t, fs.MinSize)
	v.Unmerged = true
	const files, blocks = 5, 3 * pudBlocks
	stop := time.Now().Add(3 * time.Second)
	if testing.Short() {
		stop = time.Now().Add(time.Second)
	}
	var wg sync.WaitGroup
	var reads, bad, promoted atomic.Int64
	name := func(i int) string { return fmt.Sprint("f", i) }
	for i := range files {
		v.FS.Forget(v.Create("/"+name(i)), 1)
	}
	for w := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(int64(w)))
			ctx := fs.Caller{Lane: uint32(w)}
			buf := make([]byte, 64<<10)
			for time.Now().Before(stop) {
				i := rnd.Intn(files)
				var a fs.Attr
				if v.FS.Lookup(&ctx, 1, name(i), &a) != 0 {
					continue
				}
				own := stampOf(&a)
				lo := uint64(rnd.Intn(blocks))
				switch k := rnd.Intn(12); {
				case w < 2: // promotes
					q := fs.GrantQuery{Lo: 0, Hi: blocks, Write: k%2 == 0, Allocate: k == 0, PageSize: pmdBytes, Most: 300, Handle: uint64(100 + w)}
					if k > 3 {
						q.PageSize = pudBytes
					}
					if _, _, e := v.FS.Direct().Grant(&ctx, a.Ino, &q); e == 0 {
						promoted.Add(1)
					}
					v.FS.Direct().CloseHandle(q.Handle)
				case w == 2 && k < 6: // a program reads its leased blocks again and again
					g, _, e := v.FS.Direct().Grant(&ctx, a.Ino, &fs.GrantQuery{Lo: lo, Hi: lo + 40, Most: 10, Handle: 50, PageSize: pmdBytes})
					if e != 0 {
						break
					}
					v.locks.Use(g, 4096, 1)
					if v.FS.Direct().Confirm(&ctx, a.Ino, g.ID, g.Generation) == 0 {
						for range 20 {
							for _, p := range g.Parts {
								if invariants.Enabled {
									continue // the race detector is right: stores of the mount meet these loads
								}
								n := min(int64(p.N)*4096, int64(len(buf)))
								if err := v.R.Load(int64(p.Block)*4096, buf[:n]); err != nil {
									t.Error(err)
								}
								bad.Add(foreignWords(buf[:n], own))
							}
							time.Sleep(50 * time.Microsecond)
						}
					}
					v.locks.Use(g, 4096, -1)
					v.FS.Direct().Release(a.Ino, g.ID)
					v.FS.Direct().CloseHandle(50)
				case k == 0:
					v.FS.SetAttr(&ctx, a.Ino, &fs.SetAttr{Valid: fs.SetSize, Size: lo * 4096}, &fs.Attr{})
				case k == 1:
					v.FS.Fallocate(&ctx, a.Ino, fs.FallocPunchHole|fs.FallocKeepSize, int64(lo)*4096, int64(1+rnd.Intn(30))*4096)
				case k == 2 && rnd.Intn(4) == 0:
					v.renew(&ctx, name(i))
				case k < 8:
					n := (1 + rnd.Intn(1+rnd.Intn(16))) * 4096
					stamp(buf[:n], own)
					v.FS.Write(&ctx, a.Ino, int64(lo)*4096, buf[:n])
				default:
					if n, e := v.foreignIn(&ctx, a.Ino, int64(lo)*4096, 64<<10, own); e == 0 {
						bad.Add(n)
						reads.Add(1)
					}
				}
				v.FS.Forget(a.Ino, 1)
			}
		})
	}
	wg.Wait()
	if bad.Load() > 0 {
		t.Fatalf("%d words of other files in %d reads", bad.Load(), reads.Load())
	}
	if reads.Load() < 50 || promoted.Load() < 20 || v.FS.Requested() == 0 {
		t.Fatalf("only %d reads and %d promotions that moved %d blocks", reads.Load(), promoted.Load(), v.FS.Requested())
	}
	v.settle()
	v.FS.AwaitDeleted(&v.Ctx)
	v.Remount()
}
