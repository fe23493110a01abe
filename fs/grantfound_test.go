package fs_test

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// TestGrantFoundShared checks that what is done to a file after a new mount changes no other file
// that shares blocks with it, though a program has mapped them since the former mount: nobody
// knows whether to read or to write.
func TestGrantFoundShared(t *testing.T) {
	for name, do := range map[string]func(v *granting, ino uint64){
		"zero":  func(v *granting, ino uint64) { v.Fallocate(ino, fs.FallocZeroRange, 0, 16*4096) },
		"punch": func(v *granting, ino uint64) { v.Fallocate(ino, fs.FallocPunchHole|fs.FallocKeepSize, 0, 16*4096) },
		"write": func(v *granting, ino uint64) { v.Write(ino, 100, make([]byte, 50000)) },
		"tail": func(v *granting, ino uint64) {
			v.Truncate(ino, 100)
			v.Truncate(ino, 16*4096)
		},
		"zero-ends": func(v *granting, ino uint64) { v.Fallocate(ino, fs.FallocZeroRange, 100, 15*4096) },
	} {
		for _, first := range []bool{false, true} {
			v := newGranting(t, 16<<20)
			ino, other := v.Create("/f"), v.Create("/other")
			want := bytes.Repeat([]byte{1}, 16*4096)
			v.Write(ino, 0, want)
			g := v.grant(ino, 0, 16, false)
			v.Clone(ino, 0, other, 0, 16*4096)
			v.Crash()
			v.Mount()
			changed, kept := v.Ino("/other"), v.Ino("/f")
			if first {
				changed, kept = kept, changed
			}
			do(v, changed)
			if !bytes.Equal(v.Read(kept, 0, len(want)), want) {
				t.Errorf("%s: the file that shared its blocks has changed", name)
			}
			if !bytes.Equal(v.bytesOf(g), want) {
				t.Errorf("%s: what the program maps has changed", name)
			}
			v.Delete("/f")
			v.Delete("/other")
			v.end(g)
			v.Remount()
		}
	}
}

// TestGrantBudgetComes checks that a program gets a grant although those which have just ended had
// used up the budget.
func TestGrantBudgetComes(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 4096))
	d := v.FS.Direct()
	q := &fs.GrantQuery{Lo: 0, Hi: 1, Most: 1, Handle: 1}
	var all []*lease.Grant
	for {
		g, _, e := d.Grant(&v.Ctx, ino, q)
		if e == syscall.ENOLCK {
			break
		}
		v.OK(e)
		v.locks.Use(g, 4096, 1)
		v.OK(d.Confirm(&v.Ctx, ino, g.ID, g.Generation))
		if all = append(all, g); len(all) > lease.Budget {
			t.Fatal("there is no budget")
		}
	}
	for _, g := range all {
		v.locks.Use(g, 4096, -1)
	}
	time.Sleep(30 * time.Millisecond) // a program that is refused asks again in a while
	if _, _, e := d.Grant(&v.Ctx, ino, q); e != 0 {
		t.Errorf("%v after %d leases have ended", e, len(all))
	}
}

// TestGrantSpaceComesAgain checks that one writer which finds no space gets what a program has just
// given up, although others have waited for it in vain before.
func TestGrantSpaceComesAgain(t *testing.T) {
	v := newGranting(t, 16<<20)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 256*4096))
	g := v.grant(ino, 0, 256, true)
	v.Delete("/f")
	hog, off := v.Create("/hog"), int64(0)
	for range 2 { // the second one knows that waiting was in vain
		for {
			n, e := v.FS.Write(&v.Ctx, hog, off, make([]byte, 4096))
			if off += int64(n); e != 0 {
				break
			}
		}
	}
	time.Sleep(30 * time.Millisecond) // the last sweep is a while ago
	v.locks.Use(g, 4096, -1)
	if n, e := v.FS.Write(&v.Ctx, hog, off, make([]byte, 4096)); e != 0 || n != 4096 {
		t.Errorf("%d bytes, %v, right after the program's end", n, e)
	}
}

// TestGrantCollapse checks that writes which would move a file's blocks together leave those where
// they are that a program maps.
func TestGrantCollapse(t *testing.T) {
	for _, c := range []struct{ grant, write bool }{{false, false}, {true, false}, {true, true}} {
		v := newGranting(t, 16<<20)
		rnd := rand.New(rand.NewPCG(1, 1))
		inos := [2]uint64{v.Create("/a"), v.Create("/b")}
		var at [2]int64
		var all []*lease.Grant
		for range 200 { // in turns, so that the blocks of each file do not lie together
			i := rnd.IntN(2)
			n := 1 + rnd.Int64N(9000)
			v.Write(inos[i], at[i], bytes.Repeat([]byte{1}, int(n)))
			at[i] += n
			if lo, hi := uint64(at[i]-n)/4096, uint64(at[i]+4095)/4096; c.grant {
				all = append(all, v.grant(inos[i], lo, hi, c.write))
			}
		}
		for range 4 {
			if _, e := v.FS.Compact(&v.Ctx); e != 0 {
				t.Fatal(e)
			}
		}
		if moved := v.FS.Stats().MovedBytes; (moved > 0) == c.grant {
			t.Errorf("%+v: %d bytes have moved", c, moved)
		}
		for _, g := range all {
			if v.generation(g) != g.Generation {
				t.Fatalf("%+v: the grant of blocks %d to %d is stale", c, g.Lo, g.Hi)
			}
			v.locks.Use(g, 4096, -1)
		}
	}
}

// TestGrantShareBeside checks that a copy of a part of an extent leaves the part that a program may
// store to unshared: a write does not move it, and no other file gets what the program stores.
func TestGrantShareBeside(t *testing.T) {
	for _, c := range []struct{ lo, hi, from, n int64 }{{8, 16, 0, 8}, {0, 8, 8, 8}, {4, 8, 0, 4}, {4, 8, 8, 8}} {
		v := newGranting(t, 16<<20)
		ino, other := v.Create("/f"), v.Create("/other")
		v.Write(ino, 0, bytes.Repeat([]byte{1}, 16*4096))
		g := v.grant(ino, uint64(c.lo), uint64(c.hi), true)
		store := func(b byte) {
			v.Store(int64(g.Parts[0].Block)*4096, []byte{b})
			if got := v.Read(ino, c.lo*4096, 1)[0]; got != b {
				t.Errorf("%+v: the file has %d, and the program stored %d", c, got, b)
			}
		}
		v.Clone(ino, c.from*4096, other, c.from*4096, c.n*4096)
		if v.FS.Stats().SharedBytes == 0 {
			t.Errorf("%+v: nothing is shared", c)
		}
		v.Write(ino, c.lo*4096+100, []byte("in place"))
		store(7)
		v.Clone(ino, c.lo*4096, other, c.lo*4096, (c.hi-c.lo)*4096)
		store(8)
		if got := v.Read(other, c.lo*4096, 1)[0]; got != 7 {
			t.Errorf("%+v: another file has %d", c, got)
		}
		if v.generation(g) != g.Generation {
			t.Errorf("%+v: the grant is stale", c)
		}
		v.end(g)
		v.Remount()
	}
}
