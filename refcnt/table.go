package refcnt

import (
	"fmt"
	"sync/atomic"
)

// Sizes in blocks of 4 KiB. The words of one pair fill one page of memory,
// which is why recycling them is giving back that page.
const (
	blockShift   = 12
	pairOrder    = 9
	blocksOfPair = uint64(1) << pairOrder
	wordBytes    = 8
	pairBytes    = 16
)

// maxBlocks bounds a region to 2^46 bytes, so that sizes in bytes never
// overflow an int and the reserved range fits any address space.
const maxBlocks = uint64(1) << (46 - blockShift)

// Table is the folio table of one region. All methods but Close may be called
// concurrently.
type Table struct {
	// immutable after New
	blocks uint64
	pairs  []pair
	words  []atomic.Uint64 // one per 4 KiB, resident only where pairs say so
	mem    memory

	// slow path
	retired retired
	orphans orphans

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
}

// New makes the table of a region of that many 4 KiB blocks. All are free.
func New(blocks uint64) (*Table, error) {
	if blocks == 0 || blocks > maxBlocks {
		return nil, fmt.Errorf("%w: %d, want 1 to %d", ErrSize, blocks, maxBlocks)
	}
	pairs := (blocks + blocksOfPair - 1) / blocksOfPair
	t := &Table{blocks: blocks}
	if err := t.reserve(pairs); err != nil {
		return nil, fmt.Errorf("refcnt: memory for %d blocks: %w", blocks, err)
	}
	t.words = t.words[:blocks:blocks]
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
func (t *Table) Refs(block uint64) int { return int(refsOf(t.words[block].Load())) }

// Maps returns how many of the references are granted mappings.
func (t *Table) Maps(block uint64) int { return int(mapsOf(t.words[block].Load())) }

// Shares returns how many owners the block's folio has.
func (t *Table) Shares(block uint64) int { return int(sharesOf(t.words[block].Load())) }

// Stats returns the table's figures.
func (t *Table) Stats() Stats {
	tables := uint64(max(t.tables.Load(), 0))
	return Stats{
		Blocks:     t.blocks,
		PairBytes:  uint64(len(t.pairs)) * pairBytes,
		Tables:     tables,
		TableBytes: tables * blocksOfPair * wordBytes,
		Recycled:   t.recycled.Load(),
		Orphans:    uint64(max(t.orphans.count.Load(), 0)),
	}
}
