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

// run returns how many blocks from block on are free in a row.
func (m *model) run(block uint64) (n uint64) {
	for block+n < uint64(len(m.free)) && m.free[block+n] {
		n++
	}
	return n
}

// freeFolios returns how many aligned blocks of an order are free.
func (m *model) freeFolios(order uint8) (n uint64) {
	for b := uint64(0); b+1<<order <= uint64(len(m.free)); b += 1 << order {
		if m.all(b, 1<<order, true) {
			n++
		}
	}
	return n
}

func (m *model) spare() uint64 { return max(m.freeFolios(m.o.PMD), m.reserve) - m.reserve }

// inPartial returns the longest free run within one partial PMD block, in blocks.
func (m *model) inPartial() (longest uint64) {
	size := m.o.PMDBlocks()
	for b := range uint64(len(m.free)) {
		if pmd := AlignDown(b, m.o.PMD); !m.all(pmd, size, true) {
			longest = max(longest, min(m.run(b), pmd+size-b))
		}
	}
	return longest
}

// check compares the allocator with the model, and its structures with each other.
func (m *model) check(t *rapid.T, a *Allocator) {
	var free uint64
	at := uint64(0)
	a.Walk(func(block, n uint64) bool {
		if n == 0 || block < at || block > at && !m.all(at, block-at, false) || m.run(block) != n {
			t.Fatalf("Walk reports %d+%d after %d, the model has %d blocks free there", block, n, at, m.run(block))
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
	if a.FreePMDs() != m.freeFolios(m.o.PMD) || a.FreePUDs() != m.freeFolios(m.o.PUD) {
		t.Fatalf("%d free PMD blocks and %d free PUD blocks, want %d and %d", a.FreePMDs(), a.FreePUDs(), m.freeFolios(m.o.PMD), m.freeFolios(m.o.PUD))
	}
	a.checkStructure(t)
}

// checkStructure compares the structures of the allocator that hold the same facts.
func (a *Allocator) checkStructure(t *rapid.T) {
	var partial uint64
	scratch := make([]uint64, len(a.scratch))
	for pmd := range a.pmds {
		block := &a.pmds[pmd]
		class := none
		if block.bits != 0 {
			partial++
			class = block.class
			group := a.store.at(block.bits)
			if got := classOf(group, scratch[:len(group)]); got != class {
				t.Fatalf("PMD block %d has class %d, filed under %d", pmd, got, class)
			}
		}
		for set := range a.partial {
			if a.partial[set].has(uint64(pmd)) != (int8(set) == class && !block.kept) {
				t.Fatalf("PMD block %d of class %d: in set %d %t", pmd, class, set, int8(set) != class)
			}
		}
		if isFree := allSet(a.clump(uint64(pmd)/a.span), uint64(pmd)%a.span, 1); isFree != (block.used == 0) {
			t.Fatalf("PMD block %d: %d blocks used, free %t", pmd, block.used, isFree)
		}
	}
	if partial != a.partialN {
		t.Fatalf("%d partial PMD blocks, counted %d", partial, a.partialN)
	}
	kept := 0
	for pmd := range a.pmds {
		if a.pmds[pmd].kept {
			kept++
			if a.pmds[pmd].bits == 0 {
				t.Fatalf("PMD block %d is kept and not partial", pmd)
			}
		}
	}
	for pud := range a.puds {
		block, freePMDs, free := &a.puds[pud], uint64(0), uint64(0)
		for pmd := uint64(pud) * a.span; pmd < min(uint64(pud+1)*a.span, uint64(len(a.pmds))); pmd++ {
			if a.pmds[pmd].used == 0 {
				freePMDs++
			}
			free += a.orders.PMDBlocks() - uint64(a.pmds[pmd].used)
		}
		if freePMDs != uint64(block.freePMDs) || free != uint64(block.free) {
			t.Fatalf("PUD block %d has %d free PMD blocks and %d free blocks, counted %+v", pud, freePMDs, free, block)
		}
		for set := range a.clumps {
			if a.clumps[set].has(uint64(pud)) != (set > 0 && uint64(set) == freePMDs && !block.kept) {
				t.Fatalf("PUD block %d with %d free PMD blocks, kept %t: in set %d wrongly", pud, freePMDs, block.kept, set)
			}
		}
		if block.kept {
			kept++
		}
	}
	for set := range a.clumps {
		if a.counts.has(uint64(set)) == a.clumps[set].empty() {
			t.Fatalf("PUD blocks with %d free PMD blocks: the summary is wrong", set)
		}
	}
	queue := &a.reservations
	for i := range queue.n {
		if entry := queue.queue[(queue.head+i)%len(queue.queue)]; entry.pud && a.puds[entry.index].kept || !entry.pud && a.pmds[entry.index].kept {
			kept--
		}
	}
	if kept > 0 {
		t.Fatalf("%d kept blocks are in no queue: they would be kept for ever", kept)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		orders := rapid.SampledFrom([]Orders{{1, 2}, {3, 6}, {2, 5}, {7, 9}, {1, 8}}).Draw(t, "orders")
		blocks := rapid.Uint64Range(1, 4*orders.PUDBlocks()+3).Draw(t, "blocks")
		alloc, err := NewAllocator(blocks, orders)
		if err != nil {
			t.Fatal(err)
		}
		model := &model{free: make([]bool, blocks), o: orders}
		model.set(0, blocks, true)
		var held [][2]uint64
		take := func(block, n uint64) {
			if !model.all(block, n, true) {
				t.Fatalf("got %d+%d, which is not free", block, n)
			}
			model.set(block, n, false)
			held = append(held, [2]uint64{block, n})
		}
		anywhere := rapid.Uint64Range(0, blocks+2)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { model.check(t, alloc) },
			"alloc": func(t *rapid.T) {
				goal := uint64(0)
				if rapid.Bool().Draw(t, "with goal") {
					goal = anywhere.Draw(t, "goal")
				}
				want := rapid.Uint64Range(0, rapid.SampledFrom([]uint64{3, orders.PMDBlocks(), 3 * orders.PUDBlocks()}).Draw(t, "limit")).Draw(t, "want")
				spare, partial, freePMDs := model.spare(), model.inPartial(), model.freeFolios(orders.PMD)
				keptN, keptBefore := alloc.reservations.n, make([]bool, len(alloc.pmds)+1)
				for pmd := range alloc.pmds {
					keptBefore[pmd] = alloc.pmds[pmd].kept
				}
				block, n, ok := alloc.Alloc(goal, want)
				switch {
				case ok != (want > 0 && (spare > 0 || partial > 0)):
					t.Fatalf("Alloc(%d, %d) ok %t, spare %d, longest run in partial PMD blocks %d", goal, want, ok, spare, partial)
				case !ok && n != 0 || ok && (n == 0 || n > want):
					t.Fatalf("Alloc(%d, %d) gives %d", goal, want, n)
				case !ok:
					return
				}
				if pmd := AlignDown(goal, orders.PMD); goal != 0 && goal < blocks && model.free[goal] && block != goal &&
					!model.all(pmd, min(orders.PMDBlocks(), blocks-pmd), true) && !keptBefore[goal>>orders.PMD] {
					t.Fatalf("Alloc(%d, %d) = %d, the goal was free", goal, want, block)
				}
				if block != goal || goal == 0 {
					if want >= orders.PMDBlocks() && spare > 0 && keptN == 0 && (!Aligned(block|n, orders.PMD)) {
						t.Fatalf("Alloc(%d, %d) = %d+%d with %d free PMD blocks to spare", goal, want, block, n, spare)
					}
					if want < orders.PMDBlocks() && n < want && spare > 0 && keptN == 0 && n*4 < want {
						t.Fatalf("Alloc(%d, %d) = %d+%d, spare %d, longest %d", goal, want, block, n, spare, partial)
					}
				}
				take(block, n)
				if model.freeFolios(orders.PMD) < min(model.reserve, freePMDs) {
					t.Fatalf("Alloc(%d, %d) = %d+%d took from the reserve", goal, want, block, n)
				}
			},
			"get reservation": func(t *rapid.T) {
				order := rapid.SampledFrom([]uint8{orders.PMD, orders.PUD}).Draw(t, "order")
				offset := rapid.Uint64Range(0, 1<<order-1).Draw(t, "offset")
				want := rapid.Uint64Range(1, 3<<order).Draw(t, "want")
				spare, freePMDs := model.spare(), model.freeFolios(orders.PMD)
				base, n, ok := alloc.Reservation(order, offset, want)
				switch {
				case ok && !Aligned(base, order) || n > want || !ok && n != 0 || ok && n == 0 && order == orders.PMD:
					t.Fatalf("Reservation(%d, %d, %d) = %d, %d, %t", order, offset, want, base, n, ok)
				case order == orders.PMD && ok != (spare > 0):
					t.Fatalf("Reservation(%d, %d, %d) ok %t, spare %d", order, offset, want, ok, spare)
				}
				if n > 0 {
					take(base+offset, n)
				}
				if model.freeFolios(orders.PMD) < min(model.reserve, freePMDs) {
					t.Fatalf("Reservation(%d, %d, %d) took from the reserve", order, offset, want)
				}
			},
			"extend": func(t *rapid.T) {
				block := anywhere.Draw(t, "block")
				if len(held) > 0 && rapid.Bool().Draw(t, "in place") {
					run := held[len(held)-1]
					block = run[0] + run[1]
				}
				want := rapid.Uint64Range(1, 2*orders.PMDBlocks()).Draw(t, "want")
				order := rapid.SampledFrom([]uint8{0, orders.PMD, orders.PUD}).Draw(t, "order")
				freePMDs := model.freeFolios(orders.PMD)
				alloc.expire() // as Extend will
				run := min(want, model.run(block))
				if order == orders.PMD && block < blocks {
					limit := orders.PUD
					if alloc.puds[block>>orders.PUD].kept {
						limit = orders.PMD
					}
					if run = min(run, 1<<limit-block&(1<<limit-1)); Aligned(block, limit) {
						run = 0
					}
				}
				n := alloc.Extend(block, want, order)
				if order == orders.PUD && n > 0 && n < run && Aligned(block+n, order) {
					run = n // the PUD block that follows is kept, or not free
				}
				if n > run || n < run && freePMDs-model.spare() == 0 {
					t.Fatalf("Extend(%d, %d) = %d, %d are free", block, want, n, run)
				}
				if n > 0 {
					take(block, n)
				}
			},
			"stale": func(t *rapid.T) { alloc.reservations.clock += StaleAfter },
			"chunk": func(t *rapid.T) {
				block, ok := alloc.AllocChunk()
				if ok != (model.freeFolios(orders.PMD) > 0) {
					t.Fatalf("AllocChunk ok %t with %d free PMD blocks", ok, model.freeFolios(orders.PMD))
				}
				if ok {
					if !Aligned(block, orders.PMD) {
						t.Fatalf("chunk at %d", block)
					}
					take(block, orders.PMDBlocks())
				}
			},
			"reserve blocks": func(t *rapid.T) {
				block := anywhere.Draw(t, "block")
				n := rapid.Uint64Range(0, rapid.SampledFrom([]uint64{2, orders.PUDBlocks()}).Draw(t, "limit")).Draw(t, "n")
				if got, want := alloc.Reserve(block, n), model.all(block, n, true); got != want {
					t.Fatalf("Reserve(%d, %d) = %t", block, n, got)
				} else if got && n > 0 {
					take(block, n)
				}
			},
			"reserve all": func(t *rapid.T) {
				var runs [][2]uint64
				for block := anywhere.Draw(t, "first"); block < blocks && len(runs) < 20; {
					n := rapid.Uint64Range(1, rapid.SampledFrom([]uint64{2, 3 * orders.PMDBlocks()}).Draw(t, "limit")).Draw(t, "n")
					if model.all(block, n, true) {
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
				if !alloc.ReserveAll(next(-1)) {
					t.Fatalf("ReserveAll(%v) = false", runs)
				}
				for _, run := range runs {
					take(run[0], run[1])
				}
				if len(runs) > 0 && alloc.ReserveAll(next(len(runs)-2)) {
					t.Fatalf("ReserveAll(%v) twice", runs[len(runs)-1])
				}
				runs = [][2]uint64{{blocks, 1}}
				if alloc.ReserveAll(next(-1)) {
					t.Fatal("ReserveAll outside the region")
				}
			},
			"free": func(t *rapid.T) {
				if len(held) == 0 {
					return
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				run := held[i]
				from := rapid.Uint64Range(0, run[1]-1).Draw(t, "from")
				n := rapid.Uint64Range(1, run[1]-from).Draw(t, "n")
				alloc.Free(run[0]+from, n)
				model.set(run[0]+from, n, true)
				held[i] = held[len(held)-1]
				held = held[:len(held)-1]
				if from > 0 {
					held = append(held, [2]uint64{run[0], from})
				}
				if from+n < run[1] {
					held = append(held, [2]uint64{run[0] + from + n, run[1] - from - n})
				}
			},
			"double free": func(t *rapid.T) {
				block := anywhere.Draw(t, "block")
				n := rapid.Uint64Range(1, 4).Draw(t, "n")
				if model.all(block, n, false) {
					return
				}
				defer func() {
					if recover() == nil {
						t.Fatalf("Free(%d, %d) did not panic", block, n)
					}
				}()
				alloc.Free(block, n)
			},
			"set reserve": func(t *rapid.T) {
				model.reserve = rapid.Uint64Range(0, 5).Draw(t, "chunks")
				alloc.SetReserve(model.reserve)
			},
			"is free": func(t *rapid.T) {
				block, n := anywhere.Draw(t, "block"), rapid.Uint64Range(1, 9).Draw(t, "n")
				if got, want := alloc.IsFree(block, n), model.all(block, n, true); got != want {
					t.Fatalf("IsFree(%d, %d) = %t", block, n, got)
				}
			},
		})
	})
}
