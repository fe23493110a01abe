package badmem_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// media is a region with an empty bad-range list.
type media struct {
	*testing.T
	r      *pmem.Region
	sb     *layout.Superblock
	warned []string
}

func newMedia(t *testing.T) *media {
	t.Helper()
	r, err := pmem.NewMemory(layout.MinSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	m := &media{T: t, r: r, sb: &layout.Superblock{UUID: [16]byte{1}, Size: layout.MinSize, ChunkShift: layout.ChunkShift, PUDShift: layout.PUDShift, Lanes: 1}}
	m.sb.Place()
	b := make([]byte, layout.BlockSize)
	layout.FormatBlock(b, layout.Seed(m.sb.UUID), m.sb.BadOff, 1)
	m.ok(r.Store(m.sb.BadOff, b))
	return m
}

func (m *media) ok(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// mount loads the list on media and, if saving is set, starts saving.
func (m *media) mount(saving bool) *badmem.List {
	m.Helper()
	l := badmem.New(m.r, m.sb, func(format string, a ...any) { m.warned = append(m.warned, fmt.Sprintf(format, a...)) })
	m.ok(l.Load())
	if saving {
		m.ok(l.StartSaving(func() (uint64, bool) { return 2, true }))
	}
	return l
}

// want fails the test unless a mount finds these ranges on media.
func (m *media) want(ranges ...badmem.Range) {
	m.Helper()
	if got := m.mount(false).Ranges(); !slices.Equal(got, ranges) {
		m.Errorf("ranges %v on media, want %v", got, ranges)
	}
}

// TestJoin checks that ranges are sorted and not adjacent, in whatever order they were added.
func TestJoin(t *testing.T) {
	for _, c := range []struct{ add, want []badmem.Range }{
		{[]badmem.Range{{10, 1}, {12, 1}}, []badmem.Range{{10, 1}, {12, 1}}},
		{[]badmem.Range{{12, 1}, {10, 1}, {11, 1}}, []badmem.Range{{10, 3}}},
		{[]badmem.Range{{10, 5}, {11, 1}}, []badmem.Range{{10, 5}}},
		{[]badmem.Range{{10, 2}, {10, 2}, {30, 1}, {11, 4}}, []badmem.Range{{10, 5}, {30, 1}}},
	} {
		l := newMedia(t).mount(false)
		for _, r := range c.add {
			l.Add(r, false)
		}
		if got := l.Ranges(); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.add, got, c.want)
		}
	}
}

// TestQueries compares the queries with a set of bad blocks.
func TestQueries(t *testing.T) {
	m := newMedia(t)
	l := m.mount(false)
	bad := map[uint64]bool{}
	for _, r := range []badmem.Range{{10, 2}, {15, 1}, {20, 4}} {
		l.Add(r, false)
		for b := r.Block; b < r.Block+r.N; b++ {
			bad[b] = true
		}
	}
	for lo := uint64(8); lo < 27; lo++ {
		for n := uint64(1); lo+n < 28; n++ {
			same, count := uint64(1), uint64(0)
			for same < n && bad[lo+same] == bad[lo] {
				same++
			}
			for b := lo; b < lo+n; b++ {
				if bad[b] {
					count++
				}
			}
			if got, is := l.SameState(lo, n); got != same || is != bad[lo] {
				t.Errorf("%d+%d: %d blocks in the same state, bad %v; want %d, %v", lo, n, got, is, same, bad[lo])
			}
			if err := l.Check(lo, n); l.Has(lo, n) != (count > 0) || errors.Is(err, pmem.ErrMedia) != (count > 0) {
				t.Errorf("%d+%d: has %v, check %v; %d are bad", lo, n, l.Has(lo, n), err, count)
			}
			sum := uint64(0)
			for _, r := range l.Overlaps(lo, n) {
				sum += r.N
			}
			if sum != count {
				t.Errorf("%d+%d: %d blocks overlap, want %d", lo, n, sum, count)
			}
		}
	}
}

// TestSaved checks that the next mount finds durable ranges if saving had begun, and no others.
func TestSaved(t *testing.T) {
	m := newMedia(t)
	m.mount(false).Add(badmem.Range{Block: 600, N: 1}, true)
	m.want()
	l := m.mount(true)
	l.Add(badmem.Range{Block: 600, N: 1}, true)
	l.Add(badmem.Range{Block: 602, N: 1}, true)
	l.Add(badmem.Range{Block: 601, N: 1}, true)
	if l.Unsaved() {
		t.Error("something is unsaved")
	}
	l.Add(badmem.Range{Block: 700, N: 1}, false)
	if !l.Unsaved() {
		t.Error("nothing is unsaved")
	}
	m.want(badmem.Range{Block: 600, N: 3})
}

// TestTornLine checks that a torn line counts as unused, and that the next mount stores it anew.
func TestTornLine(t *testing.T) {
	m := newMedia(t)
	l := m.mount(true)
	l.Add(badmem.Range{Block: 600, N: 1}, true)
	l.Add(badmem.Range{Block: 800, N: 1}, true)
	m.ok(m.r.Store(m.sb.BadOff+63*layout.LineSize+8, []byte("8 bytes!")))
	m.want(badmem.Range{Block: 800, N: 1})
	m.mount(true)
	for i := range int64(layout.LinesPerBlock) {
		off := m.sb.BadOff + i*layout.LineSize
		if line := (*layout.Line)(m.r.Bytes(off, layout.LineSize)); !line.Valid(layout.Seed(m.sb.UUID), off) {
			t.Errorf("line %d has a wrong checksum", i)
		}
	}
}

// TestFullList checks that a full list keeps its last line for a range that joins others, warns
// once, and knows all ranges until the unmount.
func TestFullList(t *testing.T) {
	m := newMedia(t)
	l := m.mount(true)
	for i := range uint64(70) {
		l.Add(badmem.Range{Block: 600 + 2*i, N: 1}, true)
	}
	full := 0
	for _, w := range m.warned {
		if strings.Contains(w, "list is full") {
			full++
		}
	}
	if n := len(l.Ranges()); n != 70 || !l.Unsaved() || full != 1 {
		t.Errorf("%d ranges, unsaved %v, warned %d times", n, l.Unsaved(), full)
	}
	if n := len(m.mount(false).Ranges()); n != layout.LinesPerBlock-1 {
		t.Errorf("%d ranges on media", n)
	}
	for i := range uint64(69) {
		l.Add(badmem.Range{Block: 601 + 2*i, N: 1}, true)
	}
	m.want(badmem.Range{Block: 600, N: 139})
}

// TestCrash checks that a crash during an addition leaves a list that contains all earlier ranges
// and no wrong ones.
func TestCrash(t *testing.T) {
	m := newMedia(t)
	l := m.mount(true)
	l.Add(badmem.Range{Block: 600, N: 1}, true)
	l.Add(badmem.Range{Block: 602, N: 1}, true)
	cut := &stores{r: m.r, off: m.sb.BadOff}
	m.r.SetRecorder(cut)
	l.Add(badmem.Range{Block: 601, N: 1}, true)
	m.r.SetRecorder(nil)
	if len(cut.images) < 3 {
		t.Fatalf("%d stores", len(cut.images))
	}
	for i, img := range cut.images {
		m.ok(m.r.Store(m.sb.BadOff, img))
		got := m.mount(false)
		if !got.Has(600, 1) || !got.Has(602, 1) || got.Has(599, 1) || got.Has(603, 1) {
			t.Errorf("before store %d: %v", i, got.Ranges())
		}
	}
}

// stores is a recorder that keeps the list on media as it is before each store.
type stores struct {
	r      *pmem.Region
	off    int64
	images [][]byte
}

func (s *stores) Begin(int)                  {}
func (s *stores) Flush(int, int64, int64)    {}
func (s *stores) Fence(int)                  {}
func (s *stores) NTStore(int, int64, []byte) {}
func (s *stores) Store(int, int64, []byte) {
	s.images = append(s.images, bytes.Clone(s.r.Bytes(s.off, layout.BlockSize)))
}

// TestNothingStored checks that the list reports itself unsaved if nothing may be stored any more.
func TestNothingStored(t *testing.T) {
	m := newMedia(t)
	l := m.mount(false)
	m.ok(l.StartSaving(func() (uint64, bool) { return 0, false }))
	l.Add(badmem.Range{Block: 600, N: 1}, true)
	if !l.Unsaved() {
		t.Error("nothing is unsaved")
	}
	m.want()
}

// TestQueryAllocs checks that the queries of the hot path allocate nothing.
func TestQueryAllocs(t *testing.T) {
	l := newMedia(t).mount(false)
	l.Add(badmem.Range{Block: 600, N: 1}, false)
	if n := testing.AllocsPerRun(100, func() {
		if l.Has(500, 50) || l.Check(700, 5) != nil {
			t.Error("bad")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
