package dirindex

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// positions returns the positions of a hash in a table, sorted.
func (t *table) positions(h uint32) (all []uint32) {
	l := t.leaf(h)
	if l == nil {
		return nil
	}
	for i := h; ; {
		pos, ok := l.next(h, &i)
		if !ok {
			slices.Sort(all)
			return all
		}
		all = append(all, pos)
	}
}

// check fails the test unless the table is consistent: each leaf is where its bits require, every
// entry is in its leaf, and all counts are right.
func (t *table) check(tb interface{ Fatalf(string, ...any) }) {
	if t.leaves == nil {
		if t.count != 0 {
			tb.Fatalf("no leaves, and %d entries", t.count)
		}
		return
	}
	if len(t.leaves) != 1<<t.bits {
		tb.Fatalf("%d leaves for %d bits", len(t.leaves), t.bits)
	}
	total := 0
	for i := 0; i < len(t.leaves); {
		l, n := t.leaves[i], 0
		span := 1 << (t.bits - l.bits)
		for j := range span {
			if t.leaves[i+j] != l {
				tb.Fatalf("leaf %d of %d bits is not at %d", i, l.bits, i+j)
			}
		}
		for _, v := range l.slots {
			if v == 0 {
				continue
			}
			if n++; int(uint64(uint32(v>>32))>>(32-t.bits))/span != i/span {
				tb.Fatalf("the entry of hash %x is in leaf %d", v>>32, i)
			}
		}
		if n != l.count || n*4 > len(l.slots)*3 || l.bits < leafBits && len(l.slots) > leafMax {
			tb.Fatalf("leaf %d has %d entries, says %d, in %d slots", i, n, l.count, len(l.slots))
		}
		total += n
		i += span
	}
	if total != t.count {
		tb.Fatalf("%d entries, says %d", total, t.count)
	}
}

// TestTableModel compares a table with a map, for hashes that collide in their upper bits or
// completely.
func TestTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		narrow := rapid.SampledFrom([]uint32{0xffffffff, 0xf, 0xff00000f, 0x0000ffff, 0xfff}).Draw(t, "bits of the hashes")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var tab table
		model := map[uint32][]uint32{}
		var all [][2]uint32
		for next, phase := uint32(0), 0; phase < 4; phase++ {
			n := rapid.IntRange(0, 8000).Draw(t, "entries")
			for len(all) < n {
				hash := random.Uint32() & narrow
				if narrow == 0xf && len(model[hash]) > 300 { // linear probing makes more too slow
					break
				}
				tab.insert(hash, next)
				model[hash] = append(model[hash], next)
				all = append(all, [2]uint32{hash, next})
				next++
			}
			for len(all) > n {
				i := random.IntN(len(all))
				entry := all[i]
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
				tab.remove(entry[0], entry[1])
				index := slices.Index(model[entry[0]], entry[1])
				model[entry[0]] = slices.Delete(model[entry[0]], index, index+1)
			}
			tab.check(t)
			for range 200 {
				hash := random.Uint32() & narrow
				if len(all) > 0 && random.IntN(2) == 0 {
					hash = all[random.IntN(len(all))][0]
				}
				if got := tab.positions(hash); !slices.Equal(got, model[hash]) {
					t.Fatalf("hash %x: positions %v, want %v", hash, got, model[hash])
				}
			}
		}
	})
}

// TestTableStep checks that adding or removing an entry of a large directory moves only few others,
// so that no thread waits long for the directory.
func TestTableStep(t *testing.T) {
	const n = 400_000
	r := rand.New(rand.NewPCG(1, 0))
	hashes := make([]uint32, n)
	for i := range hashes {
		hashes[i] = r.Uint32()
	}
	var tab table
	moved, widened := 0, 0
	step := func(h uint32, change func()) {
		before, bits := tab.leaf(h), tab.bits
		slots, count := 0, 0
		if before != nil {
			slots, count = len(before.slots), before.count
		}
		change()
		if after := tab.leaf(h); before != nil && (after != before || len(after.slots) != slots) {
			moved = max(moved, count)
		}
		if tab.bits > bits {
			widened = max(widened, len(tab.leaves))
		}
	}
	for i, h := range hashes {
		step(h, func() { tab.insert(h, uint32(i)) })
	}
	tab.check(t)
	for i, h := range hashes {
		step(h, func() { tab.remove(h, uint32(i)) })
	}
	if tab.count != 0 || tab.leaves != nil {
		t.Errorf("%d entries are left", tab.count)
	}
	if moved > leafMax || widened > n/256 || widened == 0 {
		t.Errorf("one change moved %d entries, want %d at most, and %d leaves, want %d at most", moved, leafMax, widened, n/256)
	}
}
