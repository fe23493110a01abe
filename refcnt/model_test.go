package refcnt

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// mfolio is a folio of the model.
type mfolio struct {
	block, n     uint64
	refs, shares int
	frozen       bool
	split        bool           // the folio was split: its references drain
	missing      map[uint64]int // by block: how many of shares do not own it
}

// mref is a reference, and the folios that count it.
type mref struct {
	ref Ref
	at  []*mfolio
}

func (f *mfolio) missingAt(b uint64) int { return f.missing[b] }

// cut takes an owner from the blocks for which in is true.
func (f *mfolio) cut(in func(b uint64) bool) {
	if f.missing == nil {
		f.missing = map[uint64]int{}
	}
	least := 1
	for b := f.block; b < f.block+f.n; b++ {
		if in(b) {
			f.missing[b]++
		}
		least = min(least, f.missing[b])
	}
	if least == 0 {
		return
	}
	f.shares-- // one owner has no block left
	for b := range f.missing {
		f.missing[b]--
	}
}

// sameStateRun reports whether all of n blocks have the same number of owners.
func (f *mfolio) sameStateRun(block, n uint64) bool {
	for b := block; b < block+n; b++ {
		if f.missing[b] != f.missing[block] {
			return false
		}
	}
	return true
}

// model describes a table as simply as possible: by the folio that covers each block.
type model struct {
	pmd, pud uint64 // blocks
	at       map[uint64]*mfolio
	draining []*mfolio // split, and still referenced
	pinned   []uint64  // blocks without an owner, not reported free yet
	freed    []uint64
}

func (m *model) put(f *mfolio) {
	for b := f.block; b < f.block+f.n; b++ {
		m.at[b] = f
	}
}

// free records that a block has no owner, and that its folio is not referenced.
func (m *model) free(b uint64) {
	delete(m.at, b)
	m.pinned = append(m.pinned, b)
}

// drained returns how many references and mappings the drains that cover a block have left.
func (m *model) drained(b uint64) (refs int) {
	for _, f := range m.draining {
		if f.block <= b && b < f.block+f.n {
			refs += f.refs
		}
	}
	return refs
}

// settle reports the pinned blocks that no drain covers any more.
func (m *model) settle() {
	m.draining = slices.DeleteFunc(m.draining, func(f *mfolio) bool { return f.refs == 0 })
	m.pinned = slices.DeleteFunc(m.pinned, func(b uint64) bool {
		refs := m.drained(b)
		if refs == 0 {
			m.freed = append(m.freed, b)
		}
		return refs == 0
	})
}

// deferred returns how many blocks have no owner but are not free.
func (m *model) deferred() (n int) {
	for _, f := range m.at {
		if f.shares == 0 {
			n++
		}
	}
	return n + len(m.pinned)
}

func (m *model) own(block, n uint64) {
	for n > 0 {
		k := uint64(1)
		for _, o := range []uint64{m.pud, m.pmd} {
			if block%o == 0 && n >= o {
				k = o
				break
			}
		}
		m.put(&mfolio{block: block, n: k, shares: 1})
		block, n = block+k, n-k
	}
}

// folios returns the folios of a range, in order; nil if one of its blocks is free.
func (m *model) folios(block, n uint64) (fs []*mfolio) {
	for b := block; b < block+n; b++ {
		f := m.at[b]
		if f == nil {
			return nil
		}
		if k := len(fs); k == 0 || fs[k-1] != f {
			fs = append(fs, f)
		}
	}
	return fs
}

func (m *model) all(block, n uint64, ok func(*mfolio) bool) bool {
	fs := m.folios(block, n)
	for _, f := range fs {
		if !ok(f) {
			return false
		}
	}
	return fs != nil
}

// owned reports whether each block of the range has an owner.
func (m *model) owned(block, n uint64) bool {
	for b := block; b < block+n; b++ {
		if f := m.at[b]; f == nil || f.shares <= f.missingAt(b) {
			return false
		}
	}
	return true
}

// split replaces f by folios of the next smaller order where all blocks have the same number of
// owners, and by single blocks elsewhere.
func (m *model) split(f *mfolio) {
	f.split = true
	m.draining = append(m.draining, f)
	size := uint64(1)
	if f.n == m.pud {
		size = m.pmd
	}
	for p := f.block; p < f.block+f.n; p += size {
		if s := f.shares - f.missingAt(p); size > 1 && f.sameStateRun(p, size) && s > 0 {
			m.put(&mfolio{block: p, n: size, shares: s})
			continue
		}
		for b := p; b < p+size; b++ {
			if s := f.shares - f.missingAt(b); s > 0 {
				m.put(&mfolio{block: b, n: 1, shares: s})
			} else {
				m.free(b)
			}
		}
	}
}

func (m *model) dropped(f *mfolio) {
	switch {
	case f.split:
	case f.shares == 0:
		for b := f.block; b < f.block+f.n && f.refs == 0; b++ {
			m.free(b)
		}
	default:
		for _, n := range f.missing {
			if n >= f.shares {
				m.split(f)
				return
			}
		}
	}
}

func (m *model) disown(block, n uint64) {
	for b := block; b < block+n; {
		f := m.at[b]
		end := min(block+n, f.block+f.n)
		switch {
		case b == f.block && end == f.block+f.n:
			f.shares--
			m.dropped(f)
		default:
			f.cut(func(c uint64) bool { return b <= c && c < end })
			m.dropped(f)
		}
		b = end
	}
}

func (m *model) share(block, n uint64) {
	for b := block; b < block+n; {
		f := m.at[b]
		f.shares++
		if end := block + n; b > f.block || end < f.block+f.n {
			f.cut(func(c uint64) bool { return c < b || c >= end })
		}
		b = f.block + f.n
	}
}

func (m *model) merge(block, size uint64) bool {
	part := uint64(1)
	if size == m.pud {
		part = m.pmd
	}
	if block%size != 0 || !m.all(block, size, func(f *mfolio) bool {
		return f.n == part && f.refs == 0 && f.shares == 1 && !f.frozen && f.sameStateRun(f.block, f.n)
	}) {
		return false
	}
	m.put(&mfolio{block: block, n: size, shares: 1})
	return true
}

// TestModel drives a table and the model with the same operations.
func TestModel(t *testing.T) {
	const pmd, pud, blocks = 3, 5, 150 // the last PUD block is cut off
	rapid.Check(t, func(t *rapid.T) {
		tab, err := New(blocks, pmd, pud)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tab.Close() }()
		model := &model{pmd: 1 << pmd, pud: 1 << pud, at: map[uint64]*mfolio{}}
		var got idles
		span := func(t *rapid.T) (block, n uint64) {
			block = rapid.Uint64Range(0, blocks-1).Draw(t, "block")
			n = rapid.Uint64Range(1, 70).Draw(t, "n")
			if rapid.Bool().Draw(t, "aligned") {
				block, n = block&^(1<<pmd-1), (n+1<<pmd-1)&^(1<<pmd-1)
			}
			return block, min(n, blocks-block)
		}
		// same compares the blocks that were reported free.
		same := func(t *rapid.T) {
			model.settle()
			var have []uint64
			for _, run := range got.take() {
				for block := run.block; block < run.block+run.n; block++ {
					have = append(have, block)
				}
			}
			want := model.freed
			model.freed = nil
			slices.Sort(have)
			slices.Sort(want)
			if !slices.Equal(have, want) {
				t.Fatalf("reported %v, want %v", have, want)
			}
		}
		usable := func(folio *mfolio) bool { return folio.shares > 0 && !folio.frozen }
		var held []mref
		// took compares the result of taking a reference to a range with the folios of the range.
		took := func(t *rapid.T, block, n uint64, reference mref, ok bool) {
			end := block
			for end < block+n {
				folio := model.at[end]
				if folio == nil || !usable(folio) || len(reference.at) > 0 && folio.n != reference.at[0].n {
					break
				}
				reference.at = append(reference.at, folio)
				end = folio.block + folio.n
			}
			if end = min(end, block+n); ok != (end > block) || reference.ref.N != end-block || ok && reference.ref.Block != block {
				t.Fatalf("got %d blocks of %d+%d (%t), want %d", reference.ref.N, block, n, ok, end-block)
			}
			if !ok {
				return
			}
			for _, folio := range reference.at {
				folio.refs++
			}
			held = append(held, reference)
		}
		drop := func(t *rapid.T, i int) {
			reference := held[i]
			held = slices.Delete(held, i, i+1)
			tab.Put(reference.ref, got.add)
			for _, folio := range reference.at {
				folio.refs--
				model.dropped(folio)
			}
			same(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				words := map[uint64]uint64{}
				for block := range uint64(blocks) {
					folio := tab.find(block)
					word := folio.w.Load()
					expected := model.at[block]
					if expected == nil {
						expected = &mfolio{n: 1, block: block}
					} else if expected.n == 1 {
						words[block>>pmd]++
					}
					have := fmt.Sprint(folio.block, folio.n, refsOf(word), sharesOf(word), word&frozen != 0, word&splitting != 0)
					if want := fmt.Sprint(expected.block, expected.n, expected.refs, expected.shares, expected.frozen, false); have != want {
						t.Fatalf("block %d is %s, want %s", block, have, want)
					}
					former := model.drained(block)
					if n := tab.Refs(block); n != expected.refs+former {
						t.Fatalf("block %d has %d references, want %d and %d to former folios", block, n, expected.refs, former)
					}
					if sole := tab.Sole(block, 1); expected.shares > 0 && sole != (expected.refs+former == 0 && expected.shares-expected.missingAt(block) <= 1) {
						t.Fatalf("block %d: Sole is %t with %d+%d references and %d owners", block, sole, expected.refs, former, expected.shares-expected.missingAt(block))
					}
					if n := tab.Shares(block); n != expected.shares-expected.missingAt(block) {
						t.Fatalf("block %d has %d owners, want %d of %d", block, n, expected.shares-expected.missingAt(block), expected.shares)
					}
				}
				if stats := tab.Stats(); int(stats.Deferred) != model.deferred() || int(stats.Draining) != len(model.draining) {
					t.Fatalf("%d blocks deferred and %d drains, want %d and %d", stats.Deferred, stats.Draining, model.deferred(), len(model.draining))
				}
				for piece := range tab.pairs {
					if n := tab.pairs[piece].table.Load() & liveMask; n != words[uint64(piece)] {
						t.Fatalf("piece %d counts %d live, want %d", piece, n, words[uint64(piece)])
					}
				}
			},
			"own": func(t *rapid.T) {
				block, n := span(t)
				for each := block; each < block+n; each++ {
					if model.at[each] != nil || slices.Contains(model.pinned, each) {
						return
					}
				}
				tab.Own(block, n)
				model.own(block, n)
			},
			"share": func(t *rapid.T) {
				block, n := span(t)
				if !model.owned(block, n) {
					return
				}
				if err := tab.Share(block, n); err != nil {
					t.Fatalf("Share(%d, %d): %v", block, n, err)
				}
				model.share(block, n)
				same(t)
			},
			"sole": func(t *rapid.T) {
				block, n := span(t)
				if !model.owned(block, n) {
					return
				}
				want := true
				for each := block; each < block+n; each++ {
					folio := model.at[each]
					former := model.drained(each)
					want = want && folio.refs+former == 0 && folio.shares-folio.missingAt(each) == 1
				}
				if tab.Sole(block, n) != want {
					t.Fatalf("Sole(%d, %d) = %t", block, n, !want)
				}
			},
			"disown": func(t *rapid.T) {
				block, n := span(t)
				for _, folio := range model.folios(block, n) {
					if folio.frozen && (block > folio.block || block+n < folio.block+folio.n) {
						return
					}
				}
				if model.owned(block, n) {
					tab.Disown(block, n, got.add)
					model.disown(block, n)
					same(t)
				}
			},
			"get": func(t *rapid.T) {
				block, n := span(t)
				ref, ok := tab.TryGet(block, n)
				took(t, block, n, mref{ref: ref}, ok)
			},
			"put": func(t *rapid.T) {
				if len(held) > 0 {
					drop(t, rapid.IntRange(0, len(held)-1).Draw(t, "reference"))
				}
			},
			"put all": func(t *rapid.T) {
				for len(held) > 0 {
					drop(t, len(held)-1)
				}
			},
			"freeze": func(t *rapid.T) {
				block, _ := span(t)
				refs := rapid.IntRange(0, 2).Draw(t, "refs")
				folio := model.at[block]
				former := model.drained(block)
				want := folio != nil && usable(folio) && folio.refs+former == refs
				if tab.Freeze(block, refs) != want {
					t.Fatalf("Freeze(%d, %d) = %t", block, refs, !want)
				}
				if want {
					folio.frozen = true
				}
			},
			"unfreeze": func(t *rapid.T) {
				block, _ := span(t)
				if folio := model.at[block]; folio != nil && folio.frozen {
					tab.Unfreeze(block)
					folio.frozen = false
				}
			},
			"split": func(t *rapid.T) {
				block, _ := span(t)
				folio := model.at[block]
				want := folio != nil && folio.n > 1 && folio.refs == 0 && folio.shares > 0 && !folio.frozen
				if tab.Split(block) != want {
					t.Fatalf("Split(%d) = %t", block, !want)
				}
				if want {
					model.split(folio)
					same(t)
				}
			},
			"restore": func(t *rapid.T) { // and continue with the copy
				if len(held) > 0 {
					return
				}
				for _, folio := range model.at {
					if folio.refs > 0 || folio.frozen {
						return
					}
				}
				now, err := New(blocks, pmd, pud)
				if err != nil {
					t.Fatal(err)
				}
				tab.Walk(func(run Run) bool {
					if err := now.Restore(run); err != nil {
						t.Fatal(err)
					}
					return true
				})
				_ = tab.Close()
				tab = now
			},
			"merge": func(t *rapid.T) {
				block, _ := span(t)
				order := uint8(rapid.SampledFrom([]int{pmd, pud}).Draw(t, "order"))
				block = block &^ (1<<order - 1)
				want := block+1<<order <= blocks && model.merge(block, 1<<order)
				if tab.Merge(block, order) != want {
					t.Fatalf("Merge(%d, %d) = %t", block, order, !want)
				}
			},
		})
	})
}
