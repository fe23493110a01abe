package hugepage

import (
	"testing"

	"pgregory.net/rapid"
)

// longestRun returns the length of the longest run of set bits.
func longestRun(set []bool) (longest uint64) {
	n := uint64(0)
	for _, s := range set {
		if n++; !s {
			n = 0
		}
		longest = max(longest, n)
	}
	return longest
}

// TestGroup compares the bit tricks with loops over bools.
func TestGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.IntRange(1, 9).Draw(t, "words")
		bound := uint64(words) * 64
		group, scratch := make([]uint64, words), make([]uint64, words)
		model := make([]bool, bound)
		class := none
		for range rapid.IntRange(0, 20).Draw(t, "runs") {
			from := rapid.Uint64Range(0, bound-1).Draw(t, "from")
			n := rapid.Uint64Range(1, bound-from).Draw(t, "n")
			if rapid.Bool().Draw(t, "short") {
				n = min(n, 1+n%7)
			}
			set := rapid.Bool().Draw(t, "set")
			any, all := false, true
			for i := from; i < from+n; i++ {
				any, all = any || model[i], all && model[i]
				model[i] = set
			}
			if anySet(group, from, n) != any || allSet(group, from, n) != all {
				t.Fatalf("any, all of %d+%d are not %t, %t", from, n, any, all)
			}
			if set {
				setRun(group, from, n)
				class = grown(group, class, from, n)
			} else {
				clearRun(group, from, n)
				class = shrunk(group, scratch, class, from, n)
			}
			longest := longestRun(model)
			if want := log2(longest); classOf(group, scratch) != want || class != want {
				t.Fatalf("class %d, kept %d, want %d", classOf(group, scratch), class, want)
			}
			want := rapid.Uint64Range(1, bound+70).Draw(t, "want")
			at, ok := findRun(group, scratch, want)
			if ok != (want <= longest) {
				t.Fatalf("findRun(%d) = %d, %t with a run of %d", want, at, ok, longest)
			}
			if ok && (longestRun(model[:at+want-1]) >= want || longestRun(model[at:at+want]) != want) {
				t.Fatalf("findRun(%d) = %d, which is not the lowest", want, at)
			}
			at = rapid.Uint64Range(0, bound).Draw(t, "at")
			after, before := uint64(0), uint64(0)
			for at+after < bound && model[at+after] {
				after++
			}
			for before < at && model[at-before-1] {
				before++
			}
			limit := rapid.Uint64Range(0, bound).Draw(t, "limit")
			if got := runFrom(group, at, limit); got != min(after, limit) {
				t.Fatalf("runFrom(%d, %d) = %d, want %d", at, limit, got, min(after, limit))
			}
			if got := runBefore(group, at); got != before {
				t.Fatalf("runBefore(%d) = %d, want %d", at, got, before)
			}
		}
	})
}

func TestBitset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]uint64{1, 63, 64, 65, 4096, 4097, 300_000}).Draw(t, "n")
		b := newBitset(n)
		model := map[uint64]bool{}
		number := rapid.Custom(func(t *rapid.T) uint64 {
			return rapid.Uint64Range(0, n-1).Draw(t, "any") &^ rapid.SampledFrom([]uint64{0, 63, 4095}).Draw(t, "round")
		})
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				i := number.Draw(t, "i")
				b.set(i)
				model[i] = true
			},
			"clear": func(t *rapid.T) {
				i := number.Draw(t, "i")
				if m, ok := b.next(i); ok {
					i = m
				}
				b.clear(i)
				delete(model, i)
			},
			"next": func(t *rapid.T) {
				i := number.Draw(t, "i") + rapid.Uint64Range(0, 1).Draw(t, "past")
				want, any := n, false
				for m := range model {
					if m >= i && m < want {
						want, any = m, true
					}
				}
				if got, ok := b.next(i); ok != any || ok && got != want {
					t.Fatalf("next(%d) = %d, %t, want %d, %t", i, got, ok, want, any)
				}
				if b.has(i) != model[i] {
					t.Fatalf("has(%d) is %t", i, b.has(i))
				}
			},
		})
	})
}
