package pagecache

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is a Space as a sorted slice.
type model []Extent

// floor returns the index of the last extent that starts at or before logical.
func (m model) floor(logical uint64) int {
	i := len(m) - 1
	for i >= 0 && m[i].Logical > logical {
		i--
	}
	return i
}

// gap returns the hole [from, to) before extent i: from 0 or the end of the extent before it to its
// start.
func (m model) gap(i int) (from, to uint64) {
	to = 1 << 20
	if i > 0 {
		from = m[i-1].End()
	}
	if i < len(m) {
		to = m[i].Logical
	}
	return from, to
}

// check compares a Space with the model, and checks the rules of the tree.
func (m model) check(t *rapid.T, s *Space) {
	if s.Len() != len(m) {
		t.Fatalf("Len %d, want %d", s.Len(), len(m))
	}
	var got []Extent
	s.Ascend(0, func(e Extent) bool { got = append(got, e); return true })
	if !slices.Equal(got, []Extent(m)) {
		t.Fatalf("holds %v, want %v", got, m)
	}
	if root := s.root.Load(); root != nil {
		checkNode(t, root, true)
	} else if len(m) > inlineExtents {
		t.Fatalf("%d extents inline", len(m))
	}
}

// checkNode checks that the keys of n are exact and that no node is empty. It returns the node's
// first key and depth.
func checkNode(t *rapid.T, n *node, root bool) (first uint64, depth int) {
	count := n.len()
	if count == 0 || count > fan {
		t.Fatalf("node of %d entries", count)
	}
	if n.kids == nil {
		return n.key[0].Load(), 1
	}
	if root && count < 2 {
		t.Fatal("inner root with one entry")
	}
	for i := range count {
		key, d := checkNode(t, n.kids[i].Load(), false)
		if key != n.key[i].Load() {
			t.Fatalf("key %d of entry %d, whose first is %d", n.key[i].Load(), i, key)
		}
		if i > 0 && (d != depth || n.key[i-1].Load() >= key) {
			t.Fatalf("entry %d: depth %d after %d, key %d after %d", i, d, depth, key, n.key[i-1].Load())
		}
		depth = d
	}
	for i := count; i < fan; i++ {
		if n.kids[i].Load() != nil {
			t.Fatalf("entry %d of %d has a pointer", i, count)
		}
	}
	return n.key[0].Load(), depth + 1
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Space
		defer s.Reset()
		var m model
		slot := uint32(0)
		// insert adds an extent of at most limit blocks into hole i.
		insert := func(t *rapid.T, i int, limit uint64) {
			from, to := m.gap(i)
			if from == to {
				return
			}
			e := Extent{Block: rapid.Uint64Range(0, maxBlock-1).Draw(t, "block"), Slot: slot}
			slot++
			e.Logical = from + rapid.Uint64Range(0, min(to-from-1, 3)).Draw(t, "skip")
			e.Len = uint32(rapid.Uint64Range(1, min(limit, to-e.Logical)).Draw(t, "len"))
			e.Flags = rapid.Uint8Range(0, 1).Draw(t, "flags")
			s.Insert(e)
			m = slices.Insert(m, i, e)
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.check(t, &s) },
			"insert": func(t *rapid.T) {
				insert(t, rapid.IntRange(0, len(m)).Draw(t, "at"), 5)
			},
			"grow": func(t *rapid.T) {
				for range rapid.IntRange(1, 200).Draw(t, "n") {
					insert(t, len(m), 2)
				}
			},
			"scatter": func(t *rapid.T) {
				at := rapid.IntRange(0, len(m)).Draw(t, "at")
				for range rapid.IntRange(1, 100).Draw(t, "n") {
					insert(t, at, 1)
				}
			},
			"remove": func(t *rapid.T) {
				logical := rapid.Uint64Range(0, 40).Draw(t, "logical")
				i := m.floor(logical)
				e, ok := s.Remove(logical)
				if want := i >= 0 && m[i].Logical == logical; ok != want || ok && e != m[i] {
					t.Fatalf("Remove(%d) = %v, %t, model has %v", logical, e, ok, m)
				}
				if ok {
					m = slices.Delete(m, i, i+1)
				}
			},
			"thin": func(t *rapid.T) {
				if len(m) == 0 {
					return
				}
				i := rapid.IntRange(0, len(m)-1).Draw(t, "from")
				n := rapid.IntRange(1, len(m)-i).Draw(t, "n")
				step := rapid.IntRange(1, 3).Draw(t, "step")
				for ; n > 0 && i < len(m); n-- {
					if e, ok := s.Remove(m[i].Logical); !ok || e != m[i] {
						t.Fatalf("Remove(%d) = %v, %t", m[i].Logical, e, ok)
					}
					m = slices.Delete(m, i, i+1)
					i += step - 1
				}
			},
			"update": func(t *rapid.T) {
				if len(m) == 0 {
					return
				}
				i := rapid.IntRange(0, len(m)-1).Draw(t, "which")
				from, _ := m.gap(i)
				_, to := m.gap(i + 1)
				e := m[i]
				e.Logical = rapid.Uint64Range(from, min(to, from+9)-1).Draw(t, "logical")
				e.Len = uint32(rapid.Uint64Range(1, min(to-e.Logical, 9)).Draw(t, "len"))
				e.Slot, slot = slot, slot+1
				s.Update(m[i].Logical, e)
				m[i] = e
			},
			"lookup": func(t *rapid.T) {
				logical := rapid.Uint64Range(0, 1000).Draw(t, "logical")
				i := m.floor(logical)
				e, ok := s.Lookup(logical)
				switch block, n, flags := s.Translate(logical); {
				case ok && (block != e.BlockAt(logical) || n != e.End()-logical || flags != e.Flags), !ok && (n != 0 || block != e.Logical):
					t.Fatalf("Translate(%d) = %d, %d, %#x; Lookup says %v, %t", logical, block, n, flags, e, ok)
				}
				switch {
				case i >= 0 && logical < m[i].End():
					if !ok || e != m[i] {
						t.Fatalf("Lookup(%d) = %v, %t, want %v", logical, e, ok, m[i])
					}
				default:
					next := uint64(None)
					if i+1 < len(m) {
						next = m[i+1].Logical
					}
					if ok || e.Logical != next {
						t.Fatalf("Lookup(%d) = %v, %t, want a hole to %d", logical, e, ok, next)
					}
				}
				prev, ok := s.Prev(logical)
				if i >= 0 && m[i].Logical == logical {
					i--
				}
				if ok != (i >= 0) || ok && prev != m[i] {
					t.Fatalf("Prev(%d) = %v, %t", logical, prev, ok)
				}
				last, ok := s.Last()
				if ok != (len(m) > 0) || ok && last != m[len(m)-1] {
					t.Fatalf("Last() = %v, %t", last, ok)
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					s.Reset()
					m = nil
				}
			},
		})
	})
}
