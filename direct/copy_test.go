package direct

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

const mib = 1 << 20

// stamped gives each block of the fake's file, in extents of 1 to 8 blocks with holes between them,
// its own bytes, and returns what the file holds. The blocks are in no order in the region.
func stamped(f *fake, rng *rand.Rand, blocks int, holes bool) []byte {
	places := rng.Perm(int(f.region.Size())/4096/8 - 1) // in units of 8 blocks, from the second on
	want := make([]byte, blocks*4096)
	var xs []protocol.Extent
	for at := 0; at < blocks; {
		n := min(1+rng.IntN(8), blocks-at)
		if holes && rng.IntN(4) == 0 {
			at += n
			continue
		}
		region := int64(1+places[len(xs)]) * 8 * 4096
		b := want[at*4096:][:n*4096]
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if err := f.region.Store(region, b); err != nil {
			f.t.Fatal(err)
		}
		xs = append(xs, protocol.Extent{Offset: uint64(at) * 4096, Region: uint64(region), Length: uint64(n) * 4096})
		at += n
	}
	f.set(uint64(len(want)), xs...)
	return want
}

// settle makes a table ask again at once.
func settle(d *File) {
	for _, t := range []*table{d.readers, d.writers} {
		if t != nil {
			t.resume.Store(0)
			t.mu.Lock()
			t.pause = 0
			t.mu.Unlock()
		}
	}
}

// TestReadAt reads random ranges of random layouts, with replies of few extents, and compares them
// with what the blocks hold. Nothing goes the normal way.
func TestReadAt(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := newFake(t, "", 64*mib)
		f.most = []int{protocol.MaxExtents, 3, 257}[seed%3]
		want := stamped(f, rng, 600, seed%2 == 0)
		size := len(want) - rng.IntN(4096)
		f.grow(uint64(size))
		want = want[:size]
		d := f.mustOpen(os.O_RDONLY)
		for range 400 {
			off, n := rng.IntN(size+5000), 1+rng.IntN(1<<rng.IntN(18))
			got := make([]byte, n)
			k, err := d.ReadAt(got, int64(off))
			end := min(size, off+n)
			switch {
			case off >= size:
				if k != 0 || err != io.EOF {
					t.Fatalf("seed %d: %d bytes at %d of %d: %d, %v", seed, n, off, size, k, err)
				}
			case k != max(0, end-off) || (err == io.EOF) != (off+n > size) || err != nil && err != io.EOF:
				t.Fatalf("seed %d: %d bytes at %d of %d: %d, %v", seed, n, off, size, k, err)
			case !bytes.Equal(got[:k], want[off:end]):
				t.Fatalf("seed %d: %d bytes at %d: not what the blocks hold", seed, n, off)
			}
		}
		// The normal way has only zeros, so what was compared was read directly.
		if f.most == protocol.MaxExtents && f.count(protocol.IocGrant) > 2 {
			t.Errorf("seed %d: %d grants of one file", seed, f.count(protocol.IocGrant))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if n := f.leases(); n != 0 || mappings.Load() != 0 {
			t.Errorf("seed %d: %d leases and %d mappings are left", seed, n, mappings.Load())
		}
	}
}

// TestWriteAt writes random ranges inside the file, and compares the blocks.
func TestWriteAt(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 2))
		f := newFake(t, "", 64*mib)
		f.most = []int{protocol.MaxExtents, 3}[seed%2]
		want := stamped(f, rng, 500, false)
		d := f.mustOpen(os.O_RDWR)
		for range 200 {
			off := rng.IntN(len(want))
			b := make([]byte, rng.IntN(min(len(want)-off, 1<<rng.IntN(17))+1))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			copy(want[off:], b)
			if n, err := d.WriteAt(b, int64(off)); n != len(b) || err != nil {
				t.Fatalf("seed %d: %d bytes at %d: %d, %v", seed, len(b), off, n, err)
			}
		}
		got := make([]byte, len(want))
		for _, x := range f.extents {
			copy(got[x.Offset:], f.region.Bytes(int64(x.Region), int64(x.Length)))
		}
		if !bytes.Equal(got, want) {
			t.Errorf("seed %d: the blocks hold other bytes than were written", seed)
		}
		if n, err := d.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, want) {
			t.Errorf("seed %d: reading it back: %d, %v", seed, n, err)
		}
		if err := d.Sync(); err != nil || f.count(protocol.IocCommit) == 0 {
			t.Errorf("seed %d: Sync: %v, %d commits", seed, err, f.count(protocol.IocCommit))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if n := f.leases(); n != 0 || mappings.Load() != 0 {
			t.Errorf("seed %d: %d leases and %d mappings are left", seed, n, mappings.Load())
		}
	}
}

// TestNormalWay checks what is read and written the normal way, and that it is right.
func TestNormalWay(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.fill(1*mib, 1, 8192)
	f.set(8192, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	d := f.mustOpen(os.O_RDWR)
	normal := func() []byte {
		b, err := os.ReadFile(f.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	// What lies beyond the end is written the normal way, what lies before it directly.
	if n, err := d.WriteAt(bytes.Repeat([]byte{2}, 100), 8192-50); n != 100 || err != nil {
		t.Fatalf("growing: %d, %v", n, err)
	}
	if !bytes.Equal(f.region.Bytes(1*mib+8192-50, 50), bytes.Repeat([]byte{2}, 50)) {
		t.Error("the part before the end is not in the blocks")
	}
	if b := normal(); len(b) != 8192+50 || b[8192] != 2 || b[8191] != 0 {
		t.Errorf("the part behind the end was not written the normal way: %d bytes", len(b))
	}
	grants := f.count(protocol.IocGrant)
	if n, err := d.WriteAt([]byte{3}, 100000); n != 1 || err != nil {
		t.Fatalf("far behind the end: %d, %v", n, err)
	}
	if f.count(protocol.IocGrant) != grants {
		t.Error("a grant was asked for, though a window knows that the file ends before")
	}
	// A hole is written the normal way; then the daemon has changed the layout.
	f.set(16384, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	settle(d)
	if n, err := d.WriteAt([]byte{4}, 9000); n != 1 || err != nil || normal()[9000] != 4 {
		t.Fatalf("in a hole: %d, %v", n, err)
	}
	// Errors of the daemon.
	for _, e := range []error{unix.EOPNOTSUPP, unix.EROFS, unix.EPERM, unix.ENOLCK, unix.EIO, unix.EAGAIN, unix.ENOTCONN} {
		f.fail[protocol.IocGrant] = e
		f.set(16384, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 16384})
		settle(d)
		if n, err := d.WriteAt([]byte{5}, 10000); n != 1 || err != nil || normal()[10000] != 5 {
			t.Errorf("%v: write: %d, %v", e, n, err)
		}
		b := make([]byte, 1)
		if n, err := d.ReadAt(b, 10000); n != 1 || err != nil || b[0] != 5 {
			t.Errorf("%v: read: %d, %v, %d", e, n, err, b[0])
		}
		grants := f.count(protocol.IocGrant)
		for range 100 {
			if _, err := d.ReadAt(b, 10000); err != nil {
				t.Fatal(err)
			}
		}
		if n := f.count(protocol.IocGrant) - grants; n > 0 {
			t.Errorf("%v: asked %d times more at once", e, n)
		}
		if err := f.file.Truncate(0); err != nil {
			t.Fatal(err)
		}
	}
	delete(f.fail, protocol.IocGrant)
	for _, e := range []error{unix.ENOLCK, unix.ESTALE, unix.ENOENT, unix.EIO} { // of CONFIRM
		f.fail[protocol.IocConfirm] = e
		settle(d)
		f.set(16384, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 16384})
		b := make([]byte, 1)
		if n, err := d.ReadAt(b, 5); n != 1 || err != nil || b[0] != 0 {
			t.Errorf("CONFIRM says %v: %d, %v, %d", e, n, err, b[0])
		}
	}
	delete(f.fail, protocol.IocConfirm)
	settle(d)
	b := make([]byte, 1)
	if n, err := d.ReadAt(b, 5); n != 1 || err != nil || b[0] != 1 {
		t.Errorf("all well again: %d, %v, %d", n, err, b[0])
	}
	if _, err := d.ReadAt(b, -1); err == nil {
		t.Error("an offset of -1 was read")
	}
}

// TestBudget checks that with the budget used up reads and writes go the normal way, and are direct
// again when there is room.
func TestBudget(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.fill(1*mib, 1, 8192)
	f.set(8192, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	defer SetBudget(SetBudget(2))
	d := f.mustOpen(os.O_RDWR)
	b := make([]byte, 1)
	if n, err := d.ReadAt(b, 0); n != 1 || err != nil || b[0] != 0 {
		t.Errorf("without budget: %d, %v, %d", n, err, b[0])
	}
	if n, err := d.WriteAt([]byte{9}, 0); n != 1 || err != nil || f.region.Bytes(1*mib, 1)[0] != 1 {
		t.Errorf("writing without budget: %d, %v", n, err)
	}
	if f.leases() != 0 || mappings.Load() != 0 {
		t.Errorf("%d leases and %d mappings", f.leases(), mappings.Load())
	}
	SetBudget(DefaultBudget)
	settle(d)
	if n, err := d.ReadAt(b, 0); n != 1 || err != nil || b[0] != 1 {
		t.Errorf("with budget: %d, %v, %d", n, err, b[0])
	}
}

// TestChange checks that a read after a change sees it: other blocks, a hole, a smaller and a
// larger file.
func TestChange(t *testing.T) {
	f := newFake(t, "", 16*mib)
	for i := range 3 {
		f.fill(int64(1+i)*mib, byte(i+1), 8192)
	}
	d := f.mustOpen(os.O_RDWR)
	for _, c := range []struct {
		name string
		size uint64
		xs   []protocol.Extent
		want []byte // of each block
	}{
		{"blocks", 8192, []protocol.Extent{{Offset: 0, Region: 1 * mib, Length: 8192}}, []byte{1, 1}},
		{"another block", 8192, []protocol.Extent{{Offset: 0, Region: 1 * mib, Length: 4096}, {Offset: 4096, Region: 3 * mib, Length: 4096}}, []byte{1, 3}},
		{"a hole", 8192, []protocol.Extent{{Offset: 4096, Region: 3 * mib, Length: 4096}}, []byte{0, 3}},
		{"a smaller file", 4096, []protocol.Extent{{Offset: 0, Region: 2 * mib, Length: 4096}}, []byte{2}},
		{"a larger file", 12288, []protocol.Extent{{Offset: 0, Region: 2 * mib, Length: 8192}, {Offset: 8192, Region: 1 * mib, Length: 4096}}, []byte{2, 2, 1}},
	} {
		f.set(c.size, c.xs...)
		time.Sleep(shortLife)
		settle(d)
		got := make([]byte, 20000)
		n, err := d.ReadAt(got, 0)
		var want []byte
		for _, b := range c.want {
			want = append(want, bytes.Repeat([]byte{b}, 4096)...)
		}
		if err != io.EOF || !bytes.Equal(got[:n], want) {
			t.Errorf("%s: %d bytes, %v", c.name, n, err)
		}
		if size, err := d.Size(); size != int64(c.size) || err != nil {
			t.Errorf("%s: size %d, %v", c.name, size, err)
		}
	}
	if n := f.leases(); n != 1 {
		t.Errorf("%d leases, the windows of former layouts should have ended", n)
	}
	// A file that grows without another change is read as far as it goes.
	f.grow(12288 - 100)
	got := make([]byte, 20000)
	if n, err := d.ReadAt(got, 0); n != 12288-100 || err != io.EOF {
		t.Errorf("another size: %d, %v", n, err)
	}
	// A layout that changes all the time is read the normal way most of the time.
	grants := f.count(protocol.IocGrant)
	for i := range 2000 {
		f.set(8192, protocol.Extent{Offset: 0, Region: uint64(1+i%3) * mib, Length: 8192})
		if _, err := d.ReadAt(got[:10], 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count(protocol.IocGrant) - grants; n > 200 {
		t.Errorf("%d grants of a layout that changed 2000 times", n)
	}
}

// TestFault checks that what cannot be accessed is read and written the normal way, whose error or
// bytes are the answer.
func TestFault(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(8192, protocol.Extent{Offset: 0, Region: 8 * mib, Length: 8192})
	if _, err := f.file.WriteAt([]byte("normal"), 0); err != nil {
		t.Fatal(err)
	}
	d := f.mustOpen(os.O_RDWR)
	if err := os.Truncate(f.region.Path(), 2*mib); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 6)
	if n, err := d.ReadAt(b, 0); n != 6 || err != nil || string(b) != "normal" {
		t.Errorf("ReadAt: %d, %v, %q", n, err, b)
	}
	if n, err := d.WriteAt([]byte("again"), 100); n != 5 || err != nil {
		t.Errorf("WriteAt: %d, %v", n, err)
	}
	if n, err := d.ReadAt(b[:5], 100); n != 5 || err != nil || string(b[:5]) != "again" {
		t.Errorf("ReadAt of what was written the normal way: %d, %v, %q", n, err, b)
	}
	// Even if the slot cannot be read.
	if err := os.Truncate(f.region.Path(), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := d.ReadAt(b, 0); n != 6 || err != nil || string(b) != "normal" {
		t.Errorf("ReadAt without a slot: %d, %v, %q", n, err, b)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// TestModes checks files that are open for reading only, for writing only, and to append.
func TestModes(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(8192, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	r, w, a := f.mustOpen(os.O_RDONLY), f.mustOpen(os.O_WRONLY), f.mustOpen(os.O_RDWR|os.O_APPEND)
	b := make([]byte, 4)
	if _, err := w.WriteAt([]byte("abcd"), 0); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadAt(b, 0); err != nil || string(b) != "abcd" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := r.WriteAt(b, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("writing a file that is open for reading: %v", err)
	}
	if _, err := w.ReadAt(b, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("reading a file that is open for writing: %v", err)
	}
	if _, err := a.WriteAt(b, 0); err == nil {
		t.Error("WriteAt of a file that is open to append")
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadAt(b, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadAt after Close: %v", err)
	}
	if err := r.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close after Close: %v", err)
	}
	if slices.ContainsFunc(f.queries, func(q protocol.GrantRequest) bool { return q.Flags&protocol.Allocate != 0 }) {
		t.Error("WriteAt has allocated")
	}
}

// TestFormerRegion checks that the region as it was opened for reading can be used on, by leases
// that are just being taken, when it is opened again for writing.
func TestFormerRegion(t *testing.T) {
	f := newFake(t, "", 16*mib)
	f.set(8192, protocol.Extent{Offset: 0, Region: 1 * mib, Length: 8192})
	d := f.mustOpen(os.O_RDWR)
	if _, err := d.ReadAt(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	r := d.conn.region
	if _, err := d.WriteAt([]byte{1}, 0); err != nil || d.Normal() != 0 || d.conn.region == r {
		t.Fatalf("WriteAt: %v, %d went the normal way, region opened again %v", err, d.Normal(), d.conn.region != r)
	}
	desc, err := r.Open(false)
	if err != nil {
		t.Fatal(err)
	}
	desc.Close()
	d.Close()
	if desc, err := r.Open(false); err == nil {
		desc.Close()
		t.Error("the region is open after the file was closed")
	}
}

// TestNoAllocs checks that reading and writing what is mapped allocates nothing.
func TestNoAllocs(t *testing.T) {
	f := newFake(t, "", 64*mib)
	stamped(f, rand.New(rand.NewPCG(1, 3)), 500, false)
	d := f.mustOpen(os.O_RDWR)
	b := make([]byte, 4096)
	off := int64(0)
	if n := testing.AllocsPerRun(1000, func() {
		off = (off + 5000) % (400 * 4096)
		if _, err := d.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("ReadAt allocates %v times", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		off = (off + 5000) % (400 * 4096)
		if _, err := d.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("WriteAt allocates %v times", n)
	}
}
