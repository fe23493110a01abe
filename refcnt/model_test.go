package refcnt

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// folio is what the model knows of a block that is not free.
type folio struct {
	refs, maps, shares int
	frozen             bool
}

// TestModel drives a table and a plain map with the same operations.
func TestModel(t *testing.T) {
	const blocks = 1200 // two pieces and a bit
	rapid.Check(t, func(t *rapid.T) {
		tab, err := New(blocks)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tab.Close() }()
		m := map[uint64]folio{}
		var got idles
		// span draws a range around the border of two pieces.
		span := func(t *rapid.T) (block, n uint64) {
			return rapid.Uint64Range(506, 516).Draw(t, "block"), rapid.Uint64Range(1, 6).Draw(t, "n")
		}
		every := func(block, n uint64, f func(folio) bool) bool {
			for b := block; b < block+n; b++ {
				if !f(m[b]) {
					return false
				}
			}
			return true
		}
		// change applies f to each block and returns the runs that became idle.
		change := func(block, n uint64, f func(*folio)) (idle []run) {
			for b := block; b < block+n; b++ {
				x := m[b]
				f(&x)
				if m[b] = x; x.refs != 0 || x.shares != 0 {
					continue
				}
				delete(m, b)
				if k := len(idle); k > 0 && idle[k-1].block+idle[k-1].n == b {
					idle[k-1].n++
				} else {
					idle = append(idle, run{b, 1})
				}
			}
			return idle
		}
		same := func(t *rapid.T, want []run) {
			if r := got.take(); !slices.Equal(r, want) {
				t.Fatalf("reported %v, want %v", r, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				have := map[uint64]folio{}
				var live [3]uint64
				for b := range uint64(blocks) {
					if tab.words[b].Load() != 0 {
						have[b] = folio{tab.Refs(b), tab.Maps(b), tab.Shares(b), tab.words[b].Load()&frozen != 0}
						live[b/blocksOfPair]++
					}
				}
				if !maps.Equal(have, m) {
					t.Fatalf("holds %v, want %v", have, m)
				}
				for p, n := range live {
					if got := tab.pairs[p].table.Load() & liveMask; got != n {
						t.Fatalf("piece %d counts %d live, want %d", p, got, n)
					}
				}
			},
			"own": func(t *rapid.T) {
				block, n := span(t)
				if every(block, n, func(x folio) bool { return x == folio{} }) {
					tab.Own(block, n)
					change(block, n, func(x *folio) { x.shares = 1 })
				}
			},
			"share": func(t *rapid.T) {
				block, n := span(t)
				if every(block, n, func(x folio) bool { return x.shares > 0 }) {
					if err := tab.Share(block, n); err != nil {
						t.Fatal(err)
					}
					change(block, n, func(x *folio) { x.shares++ })
				}
			},
			"disown": func(t *rapid.T) {
				block, n := span(t)
				if every(block, n, func(x folio) bool { return x.shares > 0 }) {
					tab.Disown(block, n, got.add)
					same(t, change(block, n, func(x *folio) { x.shares-- }))
				}
			},
			"get": func(t *rapid.T) {
				block, n := span(t)
				want := every(block, n, func(x folio) bool { return x.shares > 0 && !x.frozen })
				if tab.TryGet(block, n) != want {
					t.Fatalf("TryGet(%d, %d) = %t", block, n, !want)
				}
				if want {
					change(block, n, func(x *folio) { x.refs++ })
				}
			},
			"put": func(t *rapid.T) {
				block, n := span(t)
				if every(block, n, func(x folio) bool { return x.refs > x.maps }) {
					tab.Put(block, n, got.add)
					same(t, change(block, n, func(x *folio) { x.refs-- }))
				}
			},
			"map": func(t *rapid.T) {
				block, n := span(t)
				want := every(block, n, func(x folio) bool { return x.shares > 0 && !x.frozen })
				if err := tab.TryMap(block, n); (err == nil) != want {
					t.Fatalf("TryMap(%d, %d): %v", block, n, err)
				}
				if want {
					change(block, n, func(x *folio) { x.refs++; x.maps++ })
				}
			},
			"unmap": func(t *rapid.T) {
				block, n := span(t)
				if every(block, n, func(x folio) bool { return x.maps > 0 }) {
					tab.Unmap(block, n, got.add)
					same(t, change(block, n, func(x *folio) { x.refs--; x.maps-- }))
				}
			},
			"freeze": func(t *rapid.T) {
				block, _ := span(t)
				refs := rapid.IntRange(0, 2).Draw(t, "refs")
				x := m[block]
				want := x.shares > 0 && !x.frozen && x.refs == refs
				if tab.Freeze(block, refs) != want {
					t.Fatalf("Freeze(%d, %d) = %t", block, refs, !want)
				}
				if want {
					change(block, 1, func(x *folio) { x.frozen = true })
				}
			},
			"unfreeze": func(t *rapid.T) {
				block, _ := span(t)
				if m[block].frozen {
					tab.Unfreeze(block)
					change(block, 1, func(x *folio) { x.frozen = false })
				}
			},
		})
	})
}
