package dirindex

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs/layout"
)

const seed = 7

// media is a directory on media, and its index.
type media struct {
	t      testing.TB
	x      *Index
	region map[uint64]*[layout.BlockSize]byte
	fresh  uint64 // next unused region block
	seq    uint64
}

func newMedia(t testing.TB) *media {
	return &media{t: t, x: &Index{}, region: map[uint64]*[layout.BlockSize]byte{}, fresh: 100}
}

func (m *media) line(off int64) *layout.Line {
	return (*layout.Line)(m.region[uint64(off)>>layout.BlockShift][off&(layout.BlockSize-1):])
}

func (m *media) seal(off int64) {
	m.seq++
	m.line(off).Seal(seed, off, m.seq)
}

func (m *media) find(name string) (Entry, bool) {
	var s Search
	for off, ok := s.Start(m.x, name); ok; {
		off, ok = s.Show(m.line(off))
	}
	return s.Result()
}

// add creates an entry, in a new block if necessary, and returns its position.
func (m *media) add(name string, ino uint64) uint32 {
	n := layout.DentryLines(len(name))
	pos, ok := m.x.Room(n)
	if !ok {
		b, ok := m.x.NextBlock()
		if !ok {
			m.t.Fatal("no next block")
		}
		block := m.fresh
		m.fresh++
		m.region[block] = new([layout.BlockSize]byte)
		for i := range int64(layout.LinesPerBlock) {
			m.seal(int64(block)<<layout.BlockShift + i*layout.LineSize)
		}
		m.x.Link(b, block)
		pos = b * layout.LinesPerBlock
	}
	off := m.x.Off(pos)
	m.line(off).PutDentryHead([]byte(name), ino, 8)
	m.seal(off)
	for i := 1; i < n; i++ {
		o := off + int64(i)*layout.LineSize
		m.line(o).PutDentryCont([]byte(name), i)
		m.seal(o)
	}
	m.x.Insert(name, pos, n)
	return pos
}

// remove removes an entry, and its block if that becomes idle.
func (m *media) remove(e Entry) {
	off := m.x.Off(e.Pos)
	for i := range e.Lines() {
		m.line(off + int64(i)*layout.LineSize).ClearDentry()
		m.seal(off + int64(i)*layout.LineSize)
	}
	m.x.Remove(&e)
	if b := e.Pos / layout.LinesPerBlock; m.x.Idle(b) {
		n := m.x.BlocksWithout(b)
		delete(m.region, m.x.Unlink(b))
		if m.x.Blocks() != n {
			m.t.Fatalf("%d blocks after Unlink, want %d", m.x.Blocks(), n)
		}
	}
}

// load replaces the index by one that is read from media.
func (m *media) load() (damage []Damage) {
	x := New(uint64(m.x.Blocks()))
	for b, block := range m.x.blocks {
		x.SetBlock(uint64(b), block)
	}
	x.Load(seed, func(off int64, b []byte) error {
		block := m.region[uint64(off)>>layout.BlockShift]
		if block == nil {
			return errors.New("cannot be read")
		}
		copy(b, block[:])
		return nil
	}, func(d Damage) { damage = append(damage, d) })
	m.x = x
	return damage
}

// list returns the names on media by position.
func (m *media) list() map[uint32]string {
	all := map[uint32]string{}
	for pos := uint64(0); ; {
		at, off, ok := m.x.Next(pos)
		if !ok {
			return all
		}
		l := m.line(off)
		if l.DentryKind() != layout.DentryHead {
			m.t.Fatalf("position %d is no head line", at)
		}
		var name []byte
		n := layout.DentryLines(l.DentryNameLen())
		for i := range n {
			name = append(name, m.line(off+int64(i)*layout.LineSize).NamePart(i, l.DentryNameLen())...)
		}
		all[uint32(at)] = string(name)
		pos = at + uint64(n)
	}
}

// check compares the index with a model of names by position.
func (m *media) check(model map[uint32]string) {
	m.t.Helper()
	if m.x.Len() != len(model) {
		m.t.Fatalf("%d names, want %d", m.x.Len(), len(model))
	}
	if got := m.list(); !maps.Equal(got, model) {
		m.t.Fatalf("the directory lists %v, want %v", got, model)
	}
	for pos, name := range model {
		if e, ok := m.find(name); !ok || e.Pos != pos || e.Ino != uint64(pos)+1 || e.Lines() != layout.DentryLines(len(name)) {
			m.t.Fatalf("%q is found as %+v, %v, want position %d", name, e, ok, pos)
		}
		if e, ok := m.find(name + "x"); ok {
			m.t.Fatalf("%q is found as %+v", name+"x", e)
		}
	}
	m.x.table.check(m.t)
	avail := slices.Sorted(slices.Values(m.x.avail))
	if want := m.withRoom(); !slices.Equal(avail, want) {
		m.t.Fatalf("blocks %v are listed as having free lines, want %v", avail, want)
	}
}

func (m *media) withRoom() (blocks []uint32) {
	for b := range m.x.blocks {
		if m.x.blocks[b] != 0 && m.x.used[b] != ^uint64(0) {
			blocks = append(blocks, uint32(b))
		}
	}
	return blocks
}

func TestIndexModel(t *testing.T) {
	for s := range uint64(20) {
		r := rand.New(rand.NewPCG(s, 0))
		m, model := newMedia(t), map[uint32]string{}
		longest := []int{20, 100, 250}[s%3]
		for step := range 400 {
			if r.IntN(100) < 60-step/10 || len(model) == 0 {
				name := fmt.Sprintf("%d.%s", step, strings.Repeat("n", r.IntN(longest)))
				pos := m.add(name, 0)
				m.line(m.x.Off(pos)).SetDentryTarget(uint64(pos)+1, 8)
				m.seal(m.x.Off(pos))
				model[pos] = name
			} else {
				pos := slices.Sorted(maps.Keys(model))[r.IntN(len(model))]
				e, _ := m.find(model[pos])
				m.remove(e)
				delete(model, pos)
			}
			if step%40 == 0 {
				m.check(model)
			}
			if step == 200 {
				if d := m.load(); d != nil {
					t.Fatalf("damage in a sound directory: %v", d)
				}
			}
		}
		m.check(model)
		for _, name := range model {
			e, _ := m.find(name)
			m.remove(e)
		}
		if m.x.Blocks() != 0 || len(m.region) != 0 || len(m.x.avail) != 0 {
			t.Errorf("an empty directory has %d blocks, of which %d exist", m.x.Blocks(), len(m.region))
		}
	}
}

// TestLoadDamage damages one part of a directory of three names.
func TestLoadDamage(t *testing.T) {
	short, long, other := "short", strings.Repeat("l", 100), "other"
	for _, test := range []struct {
		name   string
		damage func(media *media, pos map[string]uint32)
		kind   DamageKind
		lost   []string
		like   string // a name that LostLike reports as possibly lost
		room   int    // first free position afterwards; -1: none
	}{
		{"a short name's line", func(media *media, pos map[string]uint32) { media.line(media.x.Off(pos[short]))[20] ^= 1 }, BadLine, []string{short}, short, 5},
		{"a long name's second line", func(media *media, pos map[string]uint32) { media.line(media.x.Off(pos[long] + 1))[20] ^= 1 }, BadEntry, []string{long}, long, 5},
		{"a long name without its second line", func(media *media, pos map[string]uint32) {
			off := media.x.Off(pos[long] + 1)
			media.line(off).ClearDentry()
			media.seal(off)
		}, BadEntry, []string{long}, long, 2},
		{"the block", func(media *media, _ map[string]uint32) { delete(media.region, 100) }, Unreadable, []string{short, long, other}, "any name", -1},
	} {
		media := newMedia(t)
		pos := map[string]uint32{}
		for _, name := range []string{short, long, other} {
			pos[name] = media.add(name, 5)
		}
		test.damage(media, pos)
		damage := media.load()
		if len(damage) == 0 || damage[0].Kind != test.kind || (damage[0].Err != nil) != (test.kind == Unreadable) {
			t.Errorf("%s: damage %+v, want kind %d first", test.name, damage, test.kind)
		}
		for _, name := range []string{short, long, other} {
			if _, ok := media.find(name); ok == slices.Contains(test.lost, name) {
				t.Errorf("%s: %q found %v", test.name, name, ok)
			}
		}
		if _, ok := media.x.LostLike(test.like); !ok || media.x.Lost() == 0 {
			t.Errorf("%s: %q may not have been lost, of %d", test.name, test.like, media.x.Lost())
		}
		if _, ok := media.x.LostLike("0123456789"); ok != (test.kind == Unreadable) {
			t.Errorf("%s: an unlike name may have been lost: %v", test.name, ok)
		}
		for next := uint64(0); ; next++ { // lost lines are neither listed nor reused
			found, off, ok := media.x.Next(next)
			if !ok {
				break
			}
			if next = found; !media.line(off).Valid(seed, off) {
				t.Errorf("%s: the damaged position %d is listed", test.name, found)
			}
		}
		if free, ok := media.x.Room(1); ok != (test.room >= 0) || ok && int(free) != test.room {
			t.Errorf("%s: position %d is free, %v; want %d", test.name, free, ok, test.room)
		}
	}
}

func TestFreeLines(t *testing.T) {
	for _, c := range []struct {
		used uint64
		n    int
		want int
	}{
		{0, 1, 0}, {0, 6, 0}, {^uint64(0), 1, -1}, {1, 1, 1}, {0b1011, 2, 4}, {0b1011, 1, 2},
		{^uint64(0) >> 1, 1, 63}, {^uint64(0) >> 1, 2, -1}, {^uint64(0) >> 3, 3, 61}, {^uint64(0) >> 3, 4, -1},
	} {
		if got := freeLines(c.used, c.n); got != c.want {
			t.Errorf("%d free lines of %#x: at %d, want %d", c.n, c.used, got, c.want)
		}
	}
}

func TestSearchAllocs(t *testing.T) {
	m := newMedia(t)
	for i := range 1000 {
		m.add(fmt.Sprint("a rather long name that takes more than one line of the directory, number ", i), 5)
	}
	found, missing := fmt.Sprint("a rather long name that takes more than one line of the directory, number ", 777), "missing"
	n := testing.AllocsPerRun(1000, func() {
		_, a := m.find(found)
		_, b := m.find(missing)
		if !a || b {
			t.Fatalf("found %v and %v", a, b)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for two searches", n)
	}
}
