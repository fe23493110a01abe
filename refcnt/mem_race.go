//go:build race

package refcnt

import "sync/atomic"

// memory is empty under the race detector, which sees only Go's own heap: the table is there.
type memory struct{}

func (t *Table) reserve(pairs uint64) error {
	t.pairs = make([]pair, pairs)
	t.words = make([]atomic.Uint64, pairs<<t.pmd)
	return nil
}

func (t *Table) discard(uint64) {}

func (t *Table) fill(block, n, w uint64) {
	for i := range t.words[block : block+n] {
		t.words[block+uint64(i)].Store(w)
	}
}

func (*memory) release() error { return nil }
