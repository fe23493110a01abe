package hugepage

import (
	"testing"

	"pgregory.net/rapid"
)

// model is the free space as one bool per block.
type model struct {
	free    []bool
	o       Orders
	reserve uint64
}

func (m *model) all(block, n uint64, free bool) bool {
	if block > uint64(len(m.free)) || n > uint64(len(m.free))-block {
		return false
	}
	for _, f := range m.free[block : block+n] {
		if f != free {
			return false
		}
	}
	return true
}

func (m *model) set(block, n uint64, free bool) {
	for i := range n {
		m.free[block+i] = free
	}
}

// run returns how many blocks from block on are free.
func (m *model) run(block uint64) (n uint64) {
	for block+n < uint64(len(m.free)) && m.free[block+n] {
		n++
	}
	return n
}

// wholes returns how many aligned folios of an order are free.
func (m *model) wholes(order uint8) (n uint64) {
	for b := uint64(0); b+1<<order <= uint64(len(m.free)); b += 1 << order {
		if m.all(b, 1<<order, true) {
			n++
		}
	}
	return n
}

func (m *model) spare() uint64 { return max(m.wholes(m.o.PMD), m.reserve) - m.reserve }

// inPartial returns the longest run within one partial PMD block.
func (m *model) inPartial() (longest uint64) {
	size := m.o.PMDBlocks()
	for b := range uint64(len(m.free)) {
		if pmd := AlignDown(b, m.o.PMD); !m.all(pmd, size, true) {
			longest = max(longest, min(m.run(b), pmd+size-b))
		}
	}
	return longest
}

// check compares the allocator with the model, and with itself.
func (m *model) check(t *rapid.T, a *Allocator) {
	var free uint64
	at := uint64(0)
	a.Walk(func(block, n uint64) bool {
		if n == 0 || block < at || block > at && !m.all(at, block-at, false) || m.run(block) != n {
			t.Fatalf("Walk says %d+%d after %d, the model has %d free there", block, n, at, m.run(block))
		}
		free += n
		at = block + n
		return true
	})
	if rest := uint64(len(m.free)) - at; !m.all(at, rest, false) {
		t.Fatalf("Walk ended at %d", at)
	}
	s := a.Stats()
	if s.Free != free || a.FreeBlocks() != free || s.Free4K+s.Free2M+s.Free1G != free {
		t.Fatalf("%d free, %+v", free, s)
	}
	if a.WholeFree2M() != m.wholes(m.o.PMD) || a.WholeFree1G() != m.wholes(m.o.PUD) {
		t.Fatalf("whole: %d %d, want %d %d", a.WholeFree2M(), a.WholeFree1G(), m.wholes(m.o.PMD), m.wholes(m.o.PUD))
	}
	a.checkStructure(t)
}

// checkStructure compares what the allocator keeps twice.
func (a *Allocator) checkStructure(t *rapid.T) {
	var partial uint64
	scratch := make([]uint64, len(a.scratch))
	for p := range a.pmds {
		r := &a.pmds[p]
		class := none
		if r.bits != 0 {
			partial++
			class = r.class
			group := a.store.at(r.bits)
			if got := classOf(group, scratch[:len(group)]); got != class {
				t.Fatalf("PMD block %d has class %d, filed under %d", p, got, class)
			}
		}
		for c := range a.partial {
			if a.partial[c].has(uint64(p)) != (int8(c) == class && !r.kept) {
				t.Fatalf("PMD block %d of class %d: in set %d %t", p, class, c, int8(c) != class)
			}
		}
		if whole := allSet(a.clump(uint64(p)/a.span), uint64(p)%a.span, 1); whole != (r.used == 0) {
			t.Fatalf("PMD block %d: used %d, whole %t", p, r.used, whole)
		}
	}
	if partial != a.partialN {
		t.Fatalf("%d broken, counted %d", partial, a.partialN)
	}
	kept := 0
	for p := range a.pmds {
		if a.pmds[p].kept {
			kept++
			if a.pmds[p].bits == 0 {
				t.Fatalf("PMD block %d is kept and not broken", p)
			}
		}
	}
	for u := range a.puds {
		r, whole, free := &a.puds[u], uint64(0), uint64(0)
		for p := uint64(u) * a.span; p < min(uint64(u+1)*a.span, uint64(len(a.pmds))); p++ {
			if a.pmds[p].used == 0 {
				whole++
			}
			free += a.orders.PMDBlocks() - uint64(a.pmds[p].used)
		}
		if whole != uint64(r.freePMDs) || free != uint64(r.free) {
			t.Fatalf("PUD block %d has %d whole PMD blocks and %d free blocks, counted %+v", u, whole, free, r)
		}
		for c := range a.clumps {
			if a.clumps[c].has(uint64(u)) != (c > 0 && uint64(c) == whole && !r.kept) {
				t.Fatalf("PUD block %d with %d whole, kept %t: in set %d wrongly", u, whole, r.kept, c)
			}
		}
		if r.kept {
			kept++
		}
	}
	for c := range a.clumps {
		if a.counts.has(uint64(c)) == a.clumps[c].empty() {
			t.Fatalf("PUD blocks with %d whole: the summary is wrong", c)
		}
	}
	h := &a.reservations
	for i := range h.n {
		if e := h.queue[(h.head+i)%len(h.queue)]; e.pud && a.puds[e.index].kept || !e.pud && a.pmds[e.index].kept {
			kept--
		}
	}
	if kept > 0 {
		t.Fatalf("%d kept blocks are in no queue: they would be kept for ever", kept)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom([]Orders{{1, 2}, {3, 6}, {2, 5}, {7, 9}, {1, 8}}).Draw(t, "orders")
		blocks := rapid.Uint64Range(1, 4*o.PUDBlocks()+3).Draw(t, "blocks")
		a, err := NewAllocator(blocks, o)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{free: make([]bool, blocks), o: o}
		m.set(0, blocks, true)
		var held [][2]uint64
		take := func(block, n uint64) {
			if !m.all(block, n, true) {
				t.Fatalf("got %d+%d, which is not free", block, n)
			}
			m.set(block, n, false)
			held = append(held, [2]uint64{block, n})
		}
		anywhere := rapid.Uint64Range(0, blocks+2)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.check(t, a) },
			"alloc": func(t *rapid.T) {
				goal := uint64(0)
				if rapid.Bool().Draw(t, "with goal") {
					goal = anywhere.Draw(t, "goal")
				}
				want := rapid.Uint64Range(0, rapid.SampledFrom([]uint64{3, o.PMDBlocks(), 3 * o.PUDBlocks()}).Draw(t, "limit")).Draw(t, "want")
				spare, partial, whole := m.spare(), m.inPartial(), m.wholes(o.PMD)
				keptN, keptBefore := a.reservations.n, make([]bool, len(a.pmds)+1)
				for p := range a.pmds {
					keptBefore[p] = a.pmds[p].kept
				}
				block, n, ok := a.Alloc(goal, want)
				switch {
				case ok != (want > 0 && (spare > 0 || partial > 0)):
					t.Fatalf("Alloc(%d, %d) ok %t, spare %d, broken %d", goal, want, ok, spare, partial)
				case !ok && n != 0 || ok && (n == 0 || n > want):
					t.Fatalf("Alloc(%d, %d) gives %d", goal, want, n)
				case !ok:
					return
				}
				if pmd := AlignDown(goal, o.PMD); goal != 0 && goal < blocks && m.free[goal] && block != goal &&
					!m.all(pmd, min(o.PMDBlocks(), blocks-pmd), true) && !keptBefore[goal>>o.PMD] {
					t.Fatalf("Alloc(%d, %d) = %d, the goal was free", goal, want, block)
				}
				if block != goal || goal == 0 {
					if want >= o.PMDBlocks() && spare > 0 && keptN == 0 && (!Aligned(block|n, o.PMD)) {
						t.Fatalf("Alloc(%d, %d) = %d+%d with %d whole", goal, want, block, n, spare)
					}
					if want < o.PMDBlocks() && n < want && spare > 0 && keptN == 0 && n*4 < want {
						t.Fatalf("Alloc(%d, %d) = %d+%d, spare %d, longest %d", goal, want, block, n, spare, partial)
					}
				}
				take(block, n)
				if m.wholes(o.PMD) < min(m.reserve, whole) {
					t.Fatalf("Alloc(%d, %d) = %d+%d took from the reserve", goal, want, block, n)
				}
			},
			"home": func(t *rapid.T) {
				order := rapid.SampledFrom([]uint8{o.PMD, o.PUD}).Draw(t, "order")
				offset := rapid.Uint64Range(0, 1<<order-1).Draw(t, "offset")
				want := rapid.Uint64Range(1, 3<<order).Draw(t, "want")
				spare, whole := m.spare(), m.wholes(o.PMD)
				base, n, ok := a.Reservation(order, offset, want)
				switch {
				case ok && !Aligned(base, order) || n > want || !ok && n != 0 || ok && n == 0 && order == o.PMD:
					t.Fatalf("Home(%d, %d, %d) = %d, %d, %t", order, offset, want, base, n, ok)
				case order == o.PMD && ok != (spare > 0):
					t.Fatalf("Home(%d, %d, %d) ok %t, spare %d", order, offset, want, ok, spare)
				}
				if n > 0 {
					take(base+offset, n)
				}
				if m.wholes(o.PMD) < min(m.reserve, whole) {
					t.Fatalf("Home(%d, %d, %d) took from the reserve", order, offset, want)
				}
			},
			"extend": func(t *rapid.T) {
				block := anywhere.Draw(t, "block")
				if len(held) > 0 && rapid.Bool().Draw(t, "in place") {
					h := held[len(held)-1]
					block = h[0] + h[1]
				}
				want := rapid.Uint64Range(1, 2*o.PMDBlocks()).Draw(t, "want")
				order := rapid.SampledFrom([]uint8{0, o.PMD, o.PUD}).Draw(t, "order")
				whole := m.wholes(o.PMD)
				a.expire() // as Extend will
				run := min(want, m.run(block))
				if order == o.PMD && block < blocks {
					limit := o.PUD
					if a.puds[block>>o.PUD].kept {
						limit = o.PMD
					}
					if run = min(run, 1<<limit-block&(1<<limit-1)); Aligned(block, limit) {
						run = 0
					}
				}
				n := a.Extend(block, want, order)
				if order == o.PUD && n > 0 && n < run && Aligned(block+n, order) {
					run = n // what follows is kept, or not whole
				}
				if n > run || n < run && whole-m.spare() == 0 {
					t.Fatalf("Extend(%d, %d) = %d, %d are free", block, want, n, run)
				}
				if n > 0 {
					take(block, n)
				}
			},
			"stale": func(t *rapid.T) { a.reservations.clock += StaleAfter },
			"chunk": func(t *rapid.T) {
				block, ok := a.AllocChunk()
				if ok != (m.wholes(o.PMD) > 0) {
					t.Fatalf("AllocChunk ok %t with %d whole", ok, m.wholes(o.PMD))
				}
				if ok {
					if !Aligned(block, o.PMD) {
						t.Fatalf("chunk at %d", block)
					}
					take(block, o.PMDBlocks())
				}
			},
			"reserve blocks": func(t *rapid.T) {
				block := anywhere.Draw(t, "block")
				n := rapid.Uint64Range(0, rapid.SampledFrom([]uint64{2, o.PUDBlocks()}).Draw(t, "limit")).Draw(t, "n")
				if got, want := a.Reserve(block, n), m.all(block, n, true); got != want {
					t.Fatalf("Reserve(%d, %d) = %t", block, n, got)
				} else if got && n > 0 {
					take(block, n)
				}
			},
			"reserve all": func(t *rapid.T) {
				var runs [][2]uint64
				for block := anywhere.Draw(t, "first"); block < blocks && len(runs) < 20; {
					n := rapid.Uint64Range(1, rapid.SampledFrom([]uint64{2, 3 * o.PMDBlocks()}).Draw(t, "limit")).Draw(t, "n")
					if m.all(block, n, true) {
						runs = append(runs, [2]uint64{block, n})
						block += n
					}
					block += rapid.Uint64Range(0, 5).Draw(t, "gap")
				}
				next := func(i int) func() (uint64, uint64, bool) {
					return func() (uint64, uint64, bool) {
						if i++; i >= len(runs) {
							return 0, 0, false
						}
						return runs[i][0], runs[i][1], true
					}
				}
				if !a.ReserveAll(next(-1)) {
					t.Fatalf("ReserveAll(%v) = false", runs)
				}
				for _, r := range runs {
					take(r[0], r[1])
				}
				if len(runs) > 0 && a.ReserveAll(next(len(runs)-2)) {
					t.Fatalf("ReserveAll(%v) twice", runs[len(runs)-1])
				}
				runs = [][2]uint64{{blocks, 1}}
				if a.ReserveAll(next(-1)) {
					t.Fatal("ReserveAll outside the region")
				}
			},
			"free": func(t *rapid.T) {
				if len(held) == 0 {
					return
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				h := held[i]
				from := rapid.Uint64Range(0, h[1]-1).Draw(t, "from")
				n := rapid.Uint64Range(1, h[1]-from).Draw(t, "n")
				a.Free(h[0]+from, n)
				m.set(h[0]+from, n, true)
				held[i] = held[len(held)-1]
				held = held[:len(held)-1]
				if from > 0 {
					held = append(held, [2]uint64{h[0], from})
				}
				if from+n < h[1] {
					held = append(held, [2]uint64{h[0] + from + n, h[1] - from - n})
				}
			},
			"double free": func(t *rapid.T) {
				block := anywhere.Draw(t, "block")
				n := rapid.Uint64Range(1, 4).Draw(t, "n")
				if m.all(block, n, false) {
					return
				}
				defer func() {
					if recover() == nil {
						t.Fatalf("Free(%d, %d) did not panic", block, n)
					}
				}()
				a.Free(block, n)
			},
			"set reserve": func(t *rapid.T) {
				m.reserve = rapid.Uint64Range(0, 5).Draw(t, "chunks")
				a.SetReserve(m.reserve)
			},
			"is free": func(t *rapid.T) {
				block, n := anywhere.Draw(t, "block"), rapid.Uint64Range(1, 9).Draw(t, "n")
				if got, want := a.IsFree(block, n), m.all(block, n, true); got != want {
					t.Fatalf("IsFree(%d, %d) = %t", block, n, got)
				}
			},
		})
	})
}
