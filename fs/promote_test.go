package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// scattered makes a file of n bytes whose blocks lie apart from each other, among those of the file
// name+".between", and returns both and the content of the first.
func (v *granting) scattered(name string, n int, seed int64) (ino, between uint64, data []byte) {
	v.Helper()
	v.FS.SpendMoves()
	rnd := rand.New(rand.NewSource(seed))
	data = make([]byte, n)
	rnd.Read(data)
	ino, between = v.Create(name), v.Create(name+".between")
	blocks := (n + 4095) / 4096
	for i, b := range rnd.Perm(blocks) {
		v.Write(ino, int64(b)*4096, data[b*4096:min(n, (b+1)*4096)])
		v.Write(between, int64(2*i)*4096, []byte{byte(seed)})
	}
	if k := v.collapsed(ino, pmdBlocks); k > 1 {
		v.Fatalf("%d PMD ranges of %s are collapsed from the start: the test shows nothing", k, name)
	}
	return ino, between, data
}

// ask asks for a grant of [lo, hi) in pages of a size, and gives it back at once.
func (v *granting) ask(ino uint64, q fs.GrantQuery) *lease.Grant {
	v.Helper()
	q.Most, q.Handle = 1000, 77
	if q.Hi == 0 {
		q.Hi = 1 << 30
	}
	g, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &q)
	if e != 0 {
		v.Fatalf("grant of blocks %d to %d: %v", q.Lo, q.Hi, e)
	}
	v.FS.Direct().CloseHandle(77)
	return g
}

// TestPromote checks that a grant collapses the aligned ranges that lie in it, whole, and no
// others.
func TestPromote(t *testing.T) {
	const size = 3*pudBytes + 3*pmdBytes + 5000 // 3 PUD ranges, 3 PMD ranges and a rest
	for _, c := range []struct {
		name       string
		q          fs.GrantQuery
		pmds, puds int // at least
	}{
		{"small pages", fs.GrantQuery{PageSize: 4096}, 0, 0},
		{"any pages", fs.GrantQuery{}, 0, 0},
		{"PMD pages", fs.GrantQuery{PageSize: pmdBytes}, 27, 0},
		{"between PMD and PUD pages", fs.GrantQuery{PageSize: 2 * pmdBytes}, 27, 0},
		{"PUD pages", fs.GrantQuery{PageSize: pudBytes}, 27, 3},
		{"larger pages", fs.GrantQuery{PageSize: 1 << 40}, 27, 3},
		{"PUD pages of a part", fs.GrantQuery{Lo: 7, Hi: 2*pudBlocks + pmdBlocks + 3, PageSize: pudBytes}, 16, 1},
		{"PUD pages to write", fs.GrantQuery{Write: true, PageSize: pudBytes}, 27, 3},
		{"with room behind the end", fs.GrantQuery{Write: true, Allocate: true, PageSize: pmdBytes}, 28, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newGranting(t, 32<<20)
			ino, between, data := v.scattered("/f", size, 3)
			was := v.Read(between, 0, 1<<30)
			free := v.Free()
			v.ask(ino, c.q)
			pmds, puds := v.collapsed(ino, pmdBlocks), v.collapsed(ino, pudBlocks)
			if pmds < c.pmds || puds < c.puds || c.pmds == 0 && v.FS.Requested() > 0 || pmds > c.pmds+1 {
				t.Errorf("%d PMD and %d PUD ranges are collapsed, expected %d and %d; %d blocks moved", pmds, puds, c.pmds, c.puds, v.FS.Requested())
			}
			moved := v.FS.Requested()
			if v.ask(ino, c.q); v.FS.Requested() != moved {
				t.Errorf("%d blocks are moved by the same grant again", v.FS.Requested()-moved)
			}
			if !c.q.Allocate && v.Free() != free {
				t.Errorf("%d blocks free, were %d", v.Free(), free)
			}
			if c.q.Allocate && v.Free()+pmdBlocks < free {
				t.Errorf("%d blocks free, were %d, so more than the last range was allocated", v.Free(), free)
			}
			for range 2 {
				if !bytes.Equal(v.Read(ino, 0, 1<<30), data) || !bytes.Equal(v.Read(between, 0, 1<<30), was) {
					t.Error("a file has changed")
				}
				v.Remount()
			}
		})
	}
}

// TestPromoteAllocates checks that what a grant allocates is aligned from the start, and that the
// rest of the last range is allocated if there is room, and only then.
func TestPromoteAllocates(t *testing.T) {
	for _, c := range []struct {
		left       int64 // bytes free at first, about; 0: many
		page       uint64
		size       uint64
		pmds, puds int
		more       uint64 // blocks behind the end of the file
	}{
		{0, pmdBytes, 3*pmdBytes + 5000, 4, 0, 6},
		{0, pudBytes, 2*pudBytes + 5000, 24, 3, 62},
		{2 << 20, pudBytes, 2*pudBytes + pmdBytes + 5000, 18, 2, 6}, // room for a whole PMD range only
		{0, 4096, 3*pmdBytes + 5000, 0, 0, 0},
	} {
		t.Run(fmt.Sprintf("%d bytes in pages of %d", c.size, c.page), func(t *testing.T) {
			v := newGranting(t, 32<<20)
			ino := v.Create("/f")
			if c.left > 0 {
				v.Fallocate(v.Create("/hog"), 0, 0, int64(v.Free())*4096-c.left)
			}
			v.Write(ino, 5*4096, []byte("in the middle")) // at an offset that has no place yet
			v.Truncate(ino, c.size)
			v.ask(ino, fs.GrantQuery{Write: true, Allocate: true, PageSize: c.page})
			if pmds, puds := v.collapsed(ino, pmdBlocks), v.collapsed(ino, pudBlocks); pmds < c.pmds || puds < c.puds {
				t.Errorf("%d PMD and %d PUD ranges are collapsed, expected %d and %d: %v", pmds, puds, c.pmds, c.puds, v.Extents(ino))
			}
			if v.FS.Requested() > pmdBlocks {
				t.Errorf("%d blocks were moved", v.FS.Requested())
			}
			st := v.Stat(ino)
			if blocks := (c.size+4095)/4096 + c.more; st.Size != c.size || st.Blocks/8 != blocks && st.Blocks/8 != blocks+1 { // with an extent block
				t.Errorf("%d bytes in %d blocks, expected %d in %d", st.Size, st.Blocks/8, c.size, blocks)
			}
			want := make([]byte, c.size)
			copy(want[5*4096:], "in the middle")
			if !bytes.Equal(v.Read(ino, 0, 1<<30), want) {
				t.Error("the file has changed")
			}
			v.Remount()
		})
	}
}

// TestPromoteAround checks that a grant is made of what there is, and that a promotion moves
// nothing that is leased, shared or bad, but all the rest.
func TestPromoteAround(t *testing.T) {
	const size = 2 * pudBytes
	whole := fs.GrantQuery{PageSize: pudBytes}
	t.Run("leased", func(t *testing.T) {
		v := newGranting(t, 32<<20)
		ino, _, data := v.scattered("/f", size, 4)
		g := v.grant(ino, 20, 21, true)
		v.ask(ino, whole)
		if n := v.collapsed(ino, pmdBlocks); n != 2*8-1 || v.generation(g) != g.Generation {
			t.Errorf("%d PMD ranges are collapsed, expected 15; the lease is stale: %v", n, v.generation(g) != g.Generation)
		}
		if n := v.collapsed(ino, pudBlocks); n != 1 {
			t.Errorf("%d PUD ranges are collapsed, expected 1", n)
		}
		// The program's stores are the file's.
		v.Store(int64(g.Parts[0].Block)*4096, []byte("stored by a program"))
		copy(data[20*4096:], "stored by a program")
		if !bytes.Equal(v.Read(ino, 0, size), data) {
			t.Error("the file is not what it was, and what the program stored")
		}
		v.end(g)
		v.ask(ino, whole)
		if n := v.collapsed(ino, pudBlocks); n != 2 {
			t.Errorf("%d PUD ranges are collapsed after the lease, expected 2", n)
		}
		if !bytes.Equal(v.Read(ino, 0, size), data) {
			t.Error("the file has changed")
		}
		v.Remount()
	})
	t.Run("leased until now", func(t *testing.T) {
		v := newGranting(t, 32<<20)
		ino, _, _ := v.scattered("/f", size, 4)
		g := v.grant(ino, 20, 21, true)
		v.locks.Use(g, 4096, -1)
		v.OK(v.FS.Direct().Release(ino, g.ID))
		v.ask(ino, whole)
		if n := v.collapsed(ino, pudBlocks); n != 2 {
			t.Errorf("%d PUD ranges are collapsed, expected 2: the lease has ended", n)
		}
	})
	t.Run("shared", func(t *testing.T) {
		v := newGranting(t, 32<<20)
		ino, _, data := v.scattered("/f", size, 5)
		other := v.Create("/copy")
		v.Clone(ino, 20*4096, other, 0, 3*4096)
		v.ask(ino, whole)
		if n := v.collapsed(ino, pmdBlocks); n != 2*8-1 {
			t.Errorf("%d PMD ranges are collapsed, expected 15", n)
		}
		w := whole
		w.Write = true
		v.ask(ino, w)
		if n := v.collapsed(ino, pudBlocks); n != 2 {
			t.Errorf("%d PUD ranges are collapsed by a grant to write, expected 2", n)
		}
		if !bytes.Equal(v.Read(ino, 0, size), data) || !bytes.Equal(v.Read(other, 0, size), data[20*4096:23*4096]) {
			t.Error("a file has changed")
		}
		v.Remount()
	})
	t.Run("a shared file", func(t *testing.T) {
		v := newGranting(t, 32<<20)
		ino, _, data := v.scattered("/f", size, 6)
		other := v.Create("/copy")
		v.Clone(ino, 0, other, 0, size)
		v.ask(ino, fs.GrantQuery{Write: true, PageSize: pudBytes})
		if n := v.collapsed(ino, pudBlocks); n != 2 || v.FS.Requested() > 0 {
			t.Errorf("%d PUD ranges are collapsed, expected 2; %d blocks were moved after they were copied", n, v.FS.Requested())
		}
		if !bytes.Equal(v.Read(ino, 0, size), data) || !bytes.Equal(v.Read(other, 0, size), data) {
			t.Error("a file has changed")
		}
		v.Remount()
	})
	t.Run("cancelled", func(t *testing.T) {
		v := newGranting(t, 32<<20)
		ino, _, _ := v.scattered("/f", size, 7)
		cancel := make(chan struct{})
		close(cancel)
		q := whole
		q.Hi, q.Most = size/4096, 1000
		if g, _, e := v.FS.Direct().Grant(&fs.Caller{Cancel: cancel}, ino, &q); e != 0 && e != syscall.EINTR {
			t.Errorf("%v, %v", g, e)
		}
		if n := v.FS.Requested(); n != 0 {
			t.Errorf("%d blocks were moved for a caller that had gone", n)
		}
	})
}

// TestPromoteClears checks that blocks of other files are moved out of the way of a PUD range, but
// not those that a program maps.
func TestPromoteClears(t *testing.T) {
	for _, leased := range []bool{false, true} {
		t.Run(fmt.Sprintf("leased=%v", leased), func(t *testing.T) {
			v := newGranting(t, fs.MinSize)
			// Files in all PUD blocks of the region, and then every other one deleted.
			var small []uint64
			for i := 0; ; i++ {
				f := v.Create(fmt.Sprint("/s", i))
				if n, e := v.FS.Write(&v.Ctx, f, 0, bytes.Repeat([]byte{byte(i)}, 4096)); n != 4096 || e != 0 {
					break
				}
				small = append(small, f)
			}
			kept := map[uint64]byte{}
			var grants []*lease.Grant
			for i, f := range small {
				if i%13 != 0 {
					v.Delete(fmt.Sprint("/s", i))
					continue
				}
				if kept[f] = byte(i); leased && i%39 == 0 {
					grants = append(grants, v.grant(f, 0, 1, true))
				}
			}
			v.FS.AwaitDeleted(&v.Ctx)
			ino, between, data := v.scattered("/f", pudBytes, 8)
			was := v.Read(between, 0, 1<<30)
			v.ask(ino, fs.GrantQuery{PageSize: pudBytes})
			if n := v.collapsed(ino, pudBlocks); n == 1 == leased {
				t.Errorf("%d PUD ranges are collapsed: %v", n, v.Extents(ino))
			}
			for _, g := range grants {
				if v.generation(g) != g.Generation {
					t.Fatal("a leased block was moved")
				}
			}
			if !bytes.Equal(v.Read(ino, 0, 1<<30), data) || !bytes.Equal(v.Read(between, 0, 1<<30), was) {
				t.Error("a file has changed")
			}
			for f, b := range kept {
				if !bytes.Equal(v.Read(f, 0, 4096), bytes.Repeat([]byte{b}, 4096)) {
					t.Errorf("inode %d has changed", f)
				}
			}
			for _, g := range grants {
				v.locks.Use(g, 4096, -1)
			}
			v.Remount()
		})
	}
}

// TestPromotePacks checks that a PMD block is made for a promotion if there is none that is free.
func TestPromotePacks(t *testing.T) {
	v := newGranting(t, fs.MinSize)
	var small []uint64
	v.FS.SpendMoves()
	for i := 0; ; i++ {
		f := v.Create(fmt.Sprint("/s", i))
		if n, e := v.FS.Write(&v.Ctx, f, 0, bytes.Repeat([]byte{byte(i)}, 4096)); n != 4096 || e != 0 {
			break
		}
		small = append(small, f)
	}
	for i := range small {
		if i%4 != 0 {
			v.Delete(fmt.Sprint("/s", i))
		}
	}
	v.FS.AwaitDeleted(&v.Ctx)
	ino, _, data := v.scattered("/f", pudBytes, 8)
	v.ask(ino, fs.GrantQuery{PageSize: pmdBytes})
	if n := v.collapsed(ino, pmdBlocks); n != 8 {
		t.Errorf("%d PMD ranges are collapsed, expected 8: %v", n, v.Extents(ino))
	}
	if !bytes.Equal(v.Read(ino, 0, 1<<30), data) {
		t.Error("the file has changed")
	}
	v.Remount()
}

// TestCollapseAfterLease checks that a range which was filled while a program mapped a part of it
// is collapsed when the lease has ended.
func TestCollapseAfterLease(t *testing.T) {
	v := newGranting(t, 32<<20)
	ino, other := v.Create("/f"), v.Create("/other")
	fill := func(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }
	v.Write(ino, 0, fill(1))
	g := v.grant(ino, 0, 1, true)
	v.Write(other, 0, fill(9)) // behind the first block
	for b := int64(1); b < pmdBlocks; b++ {
		v.Write(ino, b*4096, fill(byte(1+b)))
	}
	if n := v.collapsed(ino, pmdBlocks); n != 0 {
		t.Fatal("collapsed from the start: the test shows nothing")
	}
	v.FS.CollapseEnded(&v.Ctx)
	v.locks.Use(g, 4096, -1)
	v.OK(v.FS.Direct().Release(ino, g.ID))
	for end := time.Now().Add(10 * time.Second); v.collapsed(ino, pmdBlocks) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not collapsed after the lease has ended: %v", v.Extents(ino))
		}
	}
	for b := int64(0); b < pmdBlocks; b++ {
		if !bytes.Equal(v.Read(ino, b*4096, 4096), fill(byte(1+b))) {
			t.Error("the file has changed")
		}
	}
	v.Remount()
}
