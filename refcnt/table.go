package refcnt

import (
	"fmt"
	"sync/atomic"
)

const (
	blockShift = 12
	wordBytes  = 8
	pairBytes  = 16

	// pageOrder: the words of a piece of 2 MiB fill one page of memory, which is why
	// recycling them is giving back that page. Smaller pieces keep theirs.
	pageOrder = 9
)

// maxBlocks bounds a region to 2^46 bytes, so that sizes in bytes never
// overflow an int and the reserved range fits any address space.
const maxBlocks = uint64(1) << (46 - blockShift)

// Table is the folio table of one region. All methods but Close may be called
// concurrently.
type Table struct {
	// immutable after New
	blocks   uint64
	pmd, pud uint8  // orders, log2 of blocks
	span     uint64 // pieces of a PUD folio
	pairs    []pair

	orphanIdle func(block, n uint64) // the method orphan, bound once
	words      []atomic.Uint64       // one per 4 KiB, resident only where pairs say so
	mem        memory

	// slow path
	retired retired
	orphans orphans
	cuts    cuts

	pmds, puds atomic.Int64 // folios of these orders, not free

	tables   atomic.Int64  // pairs whose words are resident
	recycled atomic.Uint64 // pairs whose words were given back, ever
}

// Stats are the table's figures at some recent moment.
type Stats struct {
	Blocks     uint64 // size of the region in 4 KiB blocks
	PairBytes  uint64 // bytes of word pairs: 8 MiB per TiB of region
	Tables     uint64 // 2 MiB pieces whose 4 KiB words are in memory
	TableBytes uint64 // bytes of those words
	Recycled   uint64 // tables given back since New
	Orphans    uint64 // blocks waiting to be reported idle, see TryGet
	PMDs, PUDs uint64 // large folios that are not free
	Partly     uint64 // of these, of how many some owners own a part only
	Deferred   uint64 // blocks disowned of busy large folios, see Disown
}

// New makes the table of a region of that many 4 KiB blocks, all of them free, with large
// folios of the orders pmd and pud: 9 and 18 on real hardware, less in tests.
func New(blocks uint64, pmd, pud uint8) (*Table, error) {
	if blocks == 0 || blocks > maxBlocks {
		return nil, fmt.Errorf("%w: %d blocks, want 1 to %d", ErrSize, blocks, maxBlocks)
	}
	if pmd == 0 || pud <= pmd || pud > 30 {
		return nil, fmt.Errorf("%w: orders %d and %d, want 0 < PMD < PUD <= 30", ErrSize, pmd, pud)
	}
	pairs := (blocks + 1<<pmd - 1) >> pmd
	t := &Table{blocks: blocks, pmd: pmd, pud: pud, span: 1 << (pud - pmd)}
	if err := t.reserve(pairs); err != nil {
		return nil, fmt.Errorf("refcnt: memory for %d blocks: %w", blocks, err)
	}
	t.words = t.words[:blocks:blocks]
	t.orphanIdle = t.orphan
	return t, nil
}

// Close gives the table's memory back. Precondition: nobody uses the table any
// more; what does afterwards panics.
func (t *Table) Close() error {
	t.pairs, t.words, t.blocks = nil, nil, 0
	return t.mem.release()
}

// Blocks returns the size of the region in 4 KiB blocks.
func (t *Table) Blocks() uint64 { return t.blocks }

// Refs returns how many references to the block's folio are held.
func (t *Table) Refs(block uint64) int { return int(refsOf(t.find(block).w.Load())) }

// Maps returns how many of the references are granted mappings.
func (t *Table) Maps(block uint64) int { return int(mapsOf(t.find(block).w.Load())) }

// Shares returns how many owners a block has.
func (t *Table) Shares(block uint64) int {
	for {
		f := t.find(block)
		w := f.w.Load()
		if w&deferred == 0 {
			return int(sharesOf(w))
		}
		t.cuts.mu.Lock()
		n := sharesOf(w) - t.cuts.of[f.block].at(block)
		same := f.w.Load() == w
		t.cuts.mu.Unlock()
		if same {
			return int(n)
		}
	}
}

// Order returns the order of the folio that covers a block, 0 if it is free.
func (t *Table) Order(block uint64) uint8 {
	switch t.find(block).kind {
	case kindPMD:
		return t.pmd
	case kindPUD:
		return t.pud
	}
	return 0
}

// Stats returns the table's figures.
func (t *Table) Stats() Stats {
	tables := uint64(max(t.tables.Load(), 0))
	var cut, partly uint64
	t.cuts.mu.Lock()
	for block, l := range t.cuts.of {
		f := t.find(block)
		shares := sharesOf(f.w.Load())
		for _, a := range l {
			if a.count >= shares {
				cut += a.n
			}
		}
		partly++
	}
	t.cuts.mu.Unlock()
	return Stats{
		PMDs: uint64(max(t.pmds.Load(), 0)), PUDs: uint64(max(t.puds.Load(), 0)), Deferred: cut, Partly: partly,
		Blocks:     t.blocks,
		PairBytes:  uint64(len(t.pairs)) * pairBytes,
		Tables:     tables,
		TableBytes: tables << t.pmd * wordBytes,
		Recycled:   t.recycled.Load(),
		Orphans:    uint64(max(t.orphans.count.Load(), 0)),
	}
}
