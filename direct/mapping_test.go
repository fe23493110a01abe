package direct

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestMap maps random ranges of random layouts, from several grants each, and compares the bytes.
func TestMap(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 4))
		f := newFake(t, "", 64*mib)
		f.most = []int{protocol.MaxExtents, 3}[seed%2]
		want := stamped(f, rng, 300, seed%3 != 0)
		d := f.mustOpen(os.O_RDWR)
		for range 20 {
			off := rng.IntN(300) * 4096
			n := 1 + rng.IntN(len(want)-off)
			m, err := d.Map(int64(off), int64(n), MapOptions{})
			if err != nil {
				t.Fatalf("seed %d: map %d bytes at %d: %v", seed, n, off, err)
			}
			if b := m.Bytes(); len(b) != n || cap(b) != n || !bytes.Equal(b, want[off:off+n]) {
				t.Fatalf("seed %d: %d bytes at %d: not what the blocks hold", seed, n, off)
			}
			if m.Stale() {
				t.Errorf("seed %d: a new mapping is stale", seed)
			}
			at := int64(off)
			for _, p := range m.PageSizes() {
				if p.Off != at || p.Length <= 0 {
					t.Errorf("seed %d: pieces %+v", seed, m.PageSizes())
				}
				at += p.Length
			}
			if at != int64(off+n) {
				t.Errorf("seed %d: pieces %+v of %d bytes at %d", seed, m.PageSizes(), n, off)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
		d.Close()
		if n := f.leases(); n != 0 {
			t.Errorf("seed %d: %d leases are left", seed, n)
		}
	}
}

// TestMapWrite stores to a mapping, and checks what the daemon is told.
func TestMapWrite(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(64<<10, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 32 << 10}, protocol.Extent{Offset: 32 << 10, Region: 3 * mib, Length: 32 << 10})
	f.most = 1
	d := f.mustOpen(os.O_RDWR)
	m, err := d.Map(4096, 48<<10, MapOptions{Write: true, PageSize: 2 * mib})
	if err != nil {
		t.Fatal(err)
	}
	if q := f.queries[len(f.queries)-1]; q.Flags != protocol.Write || q.PageSize != 2*mib {
		t.Errorf("asked for %+v", q)
	}
	copy(m.Bytes()[28<<10-3:], "across")
	if err := m.Flush(28<<10-3, 6); err != nil {
		t.Fatal(err)
	}
	if f.count(protocol.IocCommit) != 2 {
		t.Errorf("%d commits of stores to two grants", f.count(protocol.IocCommit))
	}
	if a, b := f.region.Bytes(1*mib+32<<10-3, 3), f.region.Bytes(3*mib, 3); string(a) != "acr" || string(b) != "oss" {
		t.Errorf("the blocks hold %q and %q", a, b)
	}
	if err := m.Flush(48<<10, 1); !errors.Is(err, ErrRange) {
		t.Errorf("flushing beyond the mapping: %v", err)
	}
	f.set(4096, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 4096})
	if !m.Stale() {
		t.Error("not stale after a truncation")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closing again: %v", err)
	}
}

// TestMapAllocate checks that the request says what is to become of holes.
func TestMapAllocate(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(16384, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	d := f.mustOpen(os.O_RDWR)
	if _, err := d.Map(0, 16384, MapOptions{Write: true}); !errors.Is(err, ErrRange) {
		t.Errorf("a hole to write: %v", err)
	}
	f.before[protocol.IocGrant] = func([]byte) {
		f.set(16384, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 16384})
	}
	m, err := d.Map(0, 16384, MapOptions{Write: true, Allocate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if q := f.queries[len(f.queries)-1]; q.Flags != protocol.Write|protocol.Allocate {
		t.Errorf("asked for %+v", q)
	}
}

// TestMapPages checks that the windows of a range are given up before it is mapped in large pages,
// so that the daemon can move its blocks: it moves none that is locked, nor some time after.
func TestMapPages(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(2*mib, protocol.Extent{Offset: 0, Region: 1*mib + 4096, Length: 2 * mib})
	d := f.mustOpen(os.O_RDWR)
	if f.leases() != 0 {
		t.Error("an open file has leases before it is used")
	}
	b := make([]byte, 1)
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if d.Normal() != 0 || f.leases() != 2 {
		t.Fatalf("%d calls went the normal way, %d leases", d.Normal(), f.leases())
	}
	var free time.Time
	f.before[protocol.IocGrant] = func(arg []byte) {
		switch q := new(protocol.GrantRequest); {
		case q.Decode(arg) != nil || q.PageSize != 2*mib:
		case f.locked(1*mib, 4*mib):
			t.Error("pages of 2 MiB are asked for while the blocks are locked")
		case free.IsZero():
			free = time.Now().Add(100 * time.Millisecond)
		case time.Now().After(free):
			f.set(2*mib, protocol.Extent{Offset: 0, Region: 4 * mib, Length: 2 * mib})
		}
	}
	m, err := d.Map(0, 2*mib, MapOptions{PageSize: 2 * mib})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if p := m.PageSizes(); len(p) != 1 || p[0].PageSize != 2*mib {
		t.Errorf("pieces %+v, want one in pages of 2 MiB", p)
	}
}

// TestPin checks that a pinned mapping keeps its lease after Close, until the last Unpin.
func TestPin(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(8192, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	d := f.mustOpen(os.O_RDWR)
	m, err := d.Map(0, 8192, MapOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	for range 2 {
		if err := m.Pin(); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m.Unpin()
	if n := f.leases(); n != 1 || !f.locked(1*mib, 8192) {
		t.Errorf("%d leases while the mapping is pinned", n)
	}
	m.Unpin()
	if n := f.leases(); n != 0 || f.locked(1*mib, 8192) {
		t.Errorf("%d leases after Unpin", n)
	}
	if err := m.Pin(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Pin after the end: %v", err)
	}
}

// TestMapErrors checks the errors of Map: nothing is left of any of them.
func TestMapErrors(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(64<<10, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 64 << 10})
	d := f.mustOpen(os.O_RDONLY)
	leases := f.leases()
	for _, c := range []struct {
		name   string
		off, n int64
		o      MapOptions
		grant  error
		err    error
	}{
		{"nothing", 0, 0, MapOptions{}, nil, ErrRange},
		{"a negative offset", -4096, 4096, MapOptions{}, nil, ErrRange},
		{"between pages", 100, 4096, MapOptions{}, nil, ErrRange},
		{"beyond the end", 0, 64<<10 + 1, MapOptions{}, nil, ErrRange},
		{"far beyond the end", 1 << 62, 1 << 62, MapOptions{}, nil, ErrRange},
		{"pages of 3 bytes", 0, 4096, MapOptions{PageSize: 3}, nil, ErrRange},
		{"allocated to read", 0, 4096, MapOptions{Allocate: true}, nil, ErrRange},
		{"not open for it", 0, 4096, MapOptions{Write: true}, unix.EBADF, ErrRefused},
		{"direct=off", 0, 4096, MapOptions{}, unix.EOPNOTSUPP, ErrRefused},
		{"immutable", 0, 4096, MapOptions{}, unix.EPERM, ErrRefused},
		{"no budget", 0, 4096, MapOptions{}, unix.ENOLCK, ErrBudget},
		{"no space", 0, 4096, MapOptions{}, unix.ENOSPC, unix.ENOSPC},
	} {
		f.fail[protocol.IocGrant] = c.grant
		m, err := d.Map(c.off, c.n, c.o)
		if err == nil {
			m.Close()
		}
		if !errors.Is(err, c.err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	delete(f.fail, protocol.IocGrant)
	// The layout changes at each CONFIRM.
	f.before[protocol.IocConfirm] = func([]byte) {
		f.set(64<<10, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 64 << 10})
	}
	if _, err := d.Map(0, 4096, MapOptions{}); !errors.Is(err, ErrChanging) {
		t.Errorf("a layout that changes all the time: %v", err)
	}
	// Or once.
	f.before[protocol.IocConfirm] = func([]byte) {
		f.set(64<<10, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 64 << 10})
		delete(f.before, protocol.IocConfirm)
	}
	m, err := d.Map(0, 4096, MapOptions{})
	if err != nil {
		t.Errorf("a layout that changes once: %v", err)
	} else {
		m.Close()
	}
	if n := f.leases(); n != leases {
		t.Errorf("%d leases are left of %d", n, leases)
	}
	d.Close()
	if _, err := d.Map(0, 4096, MapOptions{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Map after Close: %v", err)
	}
}

// TestArrange checks where extents are mapped on a device with a granule of 4 blocks, and which
// layouts are refused. Numbers are blocks.
func TestArrange(t *testing.T) {
	x := func(off, region, n uint64) protocol.Extent {
		return protocol.Extent{Offset: off, Region: region, Length: n}
	}
	type xs = []protocol.Extent
	type p = pmem.Part
	for _, c := range []struct {
		name    string
		off, n  int64
		extents []protocol.Extent
		parts   []p // without the slot's
		refused string
	}{
		{"one granule", 0, 4, xs{x(0, 8, 4)}, []p{{Off: 8, At: 0, N: 4}}, ""},
		{"a part of one", 1, 2, xs{x(1, 9, 2)}, []p{{Off: 8, At: 0, N: 4}}, ""},
		{"moved by a block, alone", 0, 3, xs{x(0, 9, 3)}, []p{{Off: 8, At: 0, N: 4}}, ""},
		{"over two granules", 2, 4, xs{x(2, 10, 4)}, []p{{Off: 8, At: 0, N: 8}}, ""},
		{"two extents, granule by granule", 0, 8, xs{x(0, 16, 4), x(4, 8, 4)}, []p{{Off: 16, At: 0, N: 4}, {Off: 8, At: 4, N: 4}}, ""},
		{"two extents, of equal displacement", 1, 7, xs{x(1, 18, 2), x(3, 8, 5)}, []p{{Off: 16, At: 0, N: 4}, {Off: 8, At: 4, N: 8}}, ""},
		{"two extents in one granule", 0, 4, xs{x(0, 8, 2), x(2, 18, 2)}, nil, "moves"},
		{"a hole in a granule", 0, 4, xs{x(0, 8, 1), x(2, 10, 2)}, nil, "hole"},
		{"a hole at the start of one", 0, 4, xs{x(1, 9, 3)}, nil, "hole"},
		{"a hole at the end of one", 0, 4, xs{x(0, 8, 3)}, nil, "hole"},
		{"a hole of a granule", 0, 12, xs{x(0, 8, 4), x(8, 16, 4)}, []p{{Off: 8, At: 0, N: 4}, {At: 4, N: 4, Zeros: true}, {Off: 16, At: 8, N: 4}}, ""},
		{"only a hole", 4, 8, nil, []p{{At: 0, N: 8, Zeros: true}}, ""},
		{"misaligned against each other", 0, 8, xs{x(0, 8, 4), x(4, 17, 4)}, nil, "PageSize"},
		{"the region's last granule", 0, 3, xs{x(0, 60, 3)}, []p{{Off: 60, At: 0, N: 3}}, ""},
	} {
		const b = 4096
		g := &protocol.Grant{Slot: 4096}
		for _, e := range c.extents {
			g.Extents = append(g.Extents, x(e.Offset*b, e.Region*b, e.Length*b))
		}
		a := arrangement{unit: 4 * b, page: b, region: 63 * b, off: c.off * b, end: (c.off + c.n) * b}
		err := a.arrange([]*protocol.Grant{g})
		if c.parts == nil {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v, %+v", c.name, err, a.parts)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for i := range c.parts {
			c.parts[i].Off, c.parts[i].At, c.parts[i].N = c.parts[i].Off*b, c.parts[i].At*b, c.parts[i].N*b
		}
		slot := a.parts[len(a.parts)-1]
		if got := a.parts[:len(a.parts)-1]; !slices.Equal(got, c.parts) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.parts)
		}
		if !slot.ReadOnly || slot.Off != 0 || a.slot != slot.At+4096 || a.size != slot.At+slot.N {
			t.Errorf("%s: slot %+v at %d of %d", c.name, slot, a.slot, a.size)
		}
		for _, p := range a.parts { // congruent: the device maps whole granules only
			if (p.At+a.rest)%(4*b) != 0 || p.Off%(4*b) != 0 {
				t.Errorf("%s: part %+v", c.name, p)
			}
		}
	}
}

// TestOpenRefuses checks the errors of Open.
func TestOpenRefuses(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(8192, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	for _, c := range []struct {
		name   string
		grant  error
		before func([]byte)
		err    error
	}{
		{"another filesystem", unix.ENOTTY, nil, ErrNotDaxfsd},
		{"direct=off", unix.EOPNOTSUPP, nil, ErrRefused},
		{"a dead mount", unix.ENOTCONN, nil, unix.ENOTCONN},
		{"another region", nil, func([]byte) { f.id.Ino++ }, ErrRegion},
	} {
		f.fail[protocol.IocGrant] = c.grant
		if f.before = map[uint]func([]byte){}; c.before != nil {
			f.before[protocol.IocGrant] = c.before
		}
		for _, flags := range []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY} {
			if flags == os.O_WRONLY && c.before != nil {
				continue // the region is looked for at the first WriteAt
			}
			if d, err := f.open(flags); !errors.Is(err, c.err) {
				t.Errorf("%s, flags %d: %v", c.name, flags, err)
				if err == nil {
					d.Close()
				}
			} else if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: more than a sentence: %v", c.name, err)
			}
		}
	}
	// A daemon of another version answers with it.
	other := func(_ uint, arg []byte) error {
		clear(arg)
		arg[0] = protocol.Version + 1
		return nil
	}
	if _, err := open(f.file, other); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	// Other files, with the real ioctl.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, c := range []struct {
		file *os.File
		err  error
	}{{f.file, ErrNotDaxfsd}, {r, ErrRefused}, {dir, ErrRefused}} {
		if _, err := Open(c.file); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.file.Name(), err)
		}
	}
	if n := f.leases(); n != 0 {
		t.Errorf("%d leases are left", n)
	}
}
