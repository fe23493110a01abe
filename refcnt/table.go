package refcnt

import (
	"fmt"
	"runtime"
	"sync/atomic"
)

const (
	blockShift = 12
	wordBytes  = 8
	pairBytes  = 16

	// pageOrder is the order of a piece whose words fill one page of memory: 2 MiB. Recycling such
	// words gives back that page. The words of smaller pieces stay resident.
	pageOrder = 9
)

// maxBlocks bounds a region to 2^46 bytes, so that sizes in bytes never overflow an int, and the
// reserved range fits in any address space.
const maxBlocks = uint64(1) << (46 - blockShift)

// Table is the folio table of one region. All methods but Close may be called
// concurrently.
type Table struct {
	// immutable after New
	blocks   uint64
	pmd, pud uint8  // orders, log2 of blocks
	span     uint64 // pieces in a PUD folio
	pairs    []pair

	words []atomic.Uint64 // one per block; resident only where the pair's table word says so
	mem   memory

	// slow path
	recycleQueue recycleQueue
	partlyOwned  partlyOwned
	doubt        func(block uint64) // see Doubt; immutable once the table is used
	drains       drains
	leases       leases

	pmds, puds atomic.Int64  // folios of these orders, not free
	unlinked   atomic.Int64  // blocks of folios that are unlinked
	released   atomic.Uint64 // see Released

	tables   atomic.Int64  // pairs whose words are resident
	recycled atomic.Uint64 // pairs whose words were given back, ever
}

// Stats holds the table's figures at some recent moment.
type Stats struct {
	Blocks      uint64 // size of the region in 4 KiB blocks
	PairBytes   uint64 // bytes of word pairs: 8 MiB per TiB of region
	Tables      uint64 // 2 MiB pieces whose words of 4 KiB folios are resident
	TableBytes  uint64 // bytes of those words
	Recycled    uint64 // tables given back since New
	PMDs, PUDs  uint64 // large folios that are not free
	PartlyOwned uint64 // large folios that some owners own in part only
	Deferred    uint64 // blocks without an owner that are not free, see Table.Deferred
	Draining    uint64 // large folios that were split while they were referenced, and still are
}

// New makes the table of a region of blocks blocks of 4 KiB, all of them free. Its large folios
// have the orders pmd and pud: 9 and 18 on real hardware, less in tests.
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
	return t, nil
}

// Close gives the table's memory back. Precondition: no thread uses the table any more; later uses
// panic.
func (t *Table) Close() error {
	t.pairs, t.words, t.blocks = nil, nil, 0
	return t.mem.release()
}

// Blocks returns the size of the region in 4 KiB blocks.
func (t *Table) Blocks() uint64 { return t.blocks }

// Refs returns how many references are held to the block's folio, and to larger folios that it was
// split from.
func (t *Table) Refs(block uint64) int {
	w := t.find(block).w.Load()
	former := t.drainRefs(block)
	return int(refsOf(w) + former)
}

// Deferred returns how many blocks have no owner but are not free, since they, or a large folio
// that they were part of, are still referenced, or are leased. Only Put and Unlease make them free.
func (t *Table) Deferred() uint64 {
	return uint64(max(t.unlinked.Load()+t.drains.pinned.Load()+t.leases.pinned.Load(), 0))
}

// Released returns how many Deferred blocks Put and Unlease have made free since New.
func (t *Table) Released() uint64 { return t.released.Load() }

// Shares returns how many owners a block has.
func (t *Table) Shares(block uint64) int {
	for {
		f := t.find(block)
		w := f.w.Load()
		if w&partial == 0 {
			return int(sharesOf(w))
		}
		n := int64(-1)
		t.partlyOwned.mu.Lock()
		if y := t.partlyOwned.of[f.block]; y != nil && f.w.Load() == w {
			n = y.owners(y.max(block-f.block, 1), sharesOf(w))
		}
		t.partlyOwned.mu.Unlock()
		if n >= 0 {
			return int(n)
		}
	}
}

// Sole reports whether each of n blocks has only one owner, and its folio is not referenced, nor a
// larger folio that it was split from. Then the owner, with its lock held, may store to the blocks
// in place. That other owners have left is not enough, since a reader that came through one of them
// may still be reading.
//
// Precondition: the blocks are owned, and the caller keeps their owner from sharing them.
func (t *Table) Sole(block, n uint64) bool {
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		stop := min(end, f.end())
		w := f.w.Load()
		switch {
		case w&kindMask != f.kind || w&splitting != 0:
			runtime.Gosched()
			continue
		case w&refMask != 0:
			return false
		case w&partial != 0:
			most := int64(-1)
			t.partlyOwned.mu.Lock()
			if y := t.partlyOwned.of[f.block]; y != nil && f.w.Load() == w {
				most = y.owners(y.max(at-f.block, stop-at), sharesOf(w))
			}
			t.partlyOwned.mu.Unlock()
			if most < 0 {
				continue
			}
			if most > 1 {
				return false
			}
		case sharesOf(w) > 1:
			return false
		}
		at = stop
	}
	return !t.draining(block, n)
}

// Owned reports whether each of n blocks has an owner. It returns false if the range does not lie
// in the region. Precondition: no thread changes the owners meanwhile.
func (t *Table) Owned(block, n uint64) bool {
	if block > t.blocks || n > t.blocks-block {
		return false
	}
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		if sharesOf(f.w.Load()) == 0 {
			return false
		}
		at = f.end()
	}
	return true
}

// Order returns the order of the folio that covers a block; 0 if the block is free.
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
	t.partlyOwned.mu.Lock()
	partly := uint64(len(t.partlyOwned.of))
	t.partlyOwned.mu.Unlock()
	return Stats{
		PMDs: uint64(max(t.pmds.Load(), 0)), PUDs: uint64(max(t.puds.Load(), 0)), Deferred: t.Deferred(), PartlyOwned: partly,
		Draining:   uint64(max(t.drains.count.Load(), 0)),
		Blocks:     t.blocks,
		PairBytes:  uint64(len(t.pairs)) * pairBytes,
		Tables:     tables,
		TableBytes: tables << t.pmd * wordBytes,
		Recycled:   t.recycled.Load(),
	}
}
