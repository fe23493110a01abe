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
		var space Space
		defer space.Reset()
		var model model
		slot := uint32(0)
		// insert adds an extent of at most limit blocks into hole i.
		insert := func(t *rapid.T, i int, limit uint64) {
			from, to := model.gap(i)
			if from == to {
				return
			}
			extent := Extent{Block: rapid.Uint64Range(0, maxBlock-1).Draw(t, "block"), Slot: slot}
			slot++
			extent.Logical = from + rapid.Uint64Range(0, min(to-from-1, 3)).Draw(t, "skip")
			extent.Len = uint32(rapid.Uint64Range(1, min(limit, to-extent.Logical)).Draw(t, "len"))
			extent.Flags = rapid.Uint8Range(0, 1).Draw(t, "flags")
			space.Insert(extent)
			model = slices.Insert(model, i, extent)
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { model.check(t, &space) },
			"insert": func(t *rapid.T) {
				insert(t, rapid.IntRange(0, len(model)).Draw(t, "at"), 5)
			},
			"grow": func(t *rapid.T) {
				for range rapid.IntRange(1, 200).Draw(t, "n") {
					insert(t, len(model), 2)
				}
			},
			"scatter": func(t *rapid.T) {
				at := rapid.IntRange(0, len(model)).Draw(t, "at")
				for range rapid.IntRange(1, 100).Draw(t, "n") {
					insert(t, at, 1)
				}
			},
			"remove": func(t *rapid.T) {
				logical := rapid.Uint64Range(0, 40).Draw(t, "logical")
				i := model.floor(logical)
				extent, ok := space.Remove(logical)
				if want := i >= 0 && model[i].Logical == logical; ok != want || ok && extent != model[i] {
					t.Fatalf("Remove(%d) = %v, %t, model has %v", logical, extent, ok, model)
				}
				if ok {
					model = slices.Delete(model, i, i+1)
				}
			},
			"thin": func(t *rapid.T) {
				if len(model) == 0 {
					return
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "from")
				n := rapid.IntRange(1, len(model)-i).Draw(t, "n")
				step := rapid.IntRange(1, 3).Draw(t, "step")
				for ; n > 0 && i < len(model); n-- {
					if extent, ok := space.Remove(model[i].Logical); !ok || extent != model[i] {
						t.Fatalf("Remove(%d) = %v, %t", model[i].Logical, extent, ok)
					}
					model = slices.Delete(model, i, i+1)
					i += step - 1
				}
			},
			"update": func(t *rapid.T) {
				if len(model) == 0 {
					return
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "which")
				from, _ := model.gap(i)
				_, to := model.gap(i + 1)
				extent := model[i]
				extent.Logical = rapid.Uint64Range(from, min(to, from+9)-1).Draw(t, "logical")
				extent.Len = uint32(rapid.Uint64Range(1, min(to-extent.Logical, 9)).Draw(t, "len"))
				extent.Slot, slot = slot, slot+1
				space.Update(model[i].Logical, extent)
				model[i] = extent
			},
			"lookup": func(t *rapid.T) {
				logical := rapid.Uint64Range(0, 1000).Draw(t, "logical")
				i := model.floor(logical)
				extent, ok := space.Lookup(logical)
				switch block, n, flags := space.Translate(logical); {
				case ok && (block != extent.BlockAt(logical) || n != extent.End()-logical || flags != extent.Flags), !ok && (n != 0 || block != extent.Logical):
					t.Fatalf("Translate(%d) = %d, %d, %#x; Lookup says %v, %t", logical, block, n, flags, extent, ok)
				}
				switch {
				case i >= 0 && logical < model[i].End():
					if !ok || extent != model[i] {
						t.Fatalf("Lookup(%d) = %v, %t, want %v", logical, extent, ok, model[i])
					}
				default:
					next := uint64(None)
					if i+1 < len(model) {
						next = model[i+1].Logical
					}
					if ok || extent.Logical != next {
						t.Fatalf("Lookup(%d) = %v, %t, want a hole to %d", logical, extent, ok, next)
					}
				}
				prev, ok := space.Prev(logical)
				if i >= 0 && model[i].Logical == logical {
					i--
				}
				if ok != (i >= 0) || ok && prev != model[i] {
					t.Fatalf("Prev(%d) = %v, %t", logical, prev, ok)
				}
				last, ok := space.Last()
				if ok != (len(model) > 0) || ok && last != model[len(model)-1] {
					t.Fatalf("Last() = %v, %t", last, ok)
				}
			},
			"reset": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					space.Reset()
					model = nil
				}
			},
		})
	})
}
