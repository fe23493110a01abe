package refcnt

// Count holds the results of a walk over the folios. They are not of one moment.
type Count struct {
	Words  uint64 // folios of 4 KiB that are not free
	Shared uint64 // blocks with more than one owner
}

// Count walks over all folios. It takes about a millisecond per TiB of large folios.
func (t *Table) Count() (c Count) {
	for p := range t.pairs {
		h := t.pairs[p].head.Load()
		switch h & kindMask {
		case kindTail:
		case 0:
			if t.pairs[p].table.Load()&liveMask == 0 {
				continue
			}
			base := uint64(p) << t.pmd
			words := t.words[base:min(base+1<<t.pmd, t.blocks)]
			for i := range words {
				w := words[i].Load()
				if w != 0 {
					c.Words++
				}
				if sharesOf(w) > 1 {
					c.Shared++
				}
			}
		default:
			n := uint64(1) << t.pmd
			if h&kindMask == kindPUD {
				n = 1 << t.pud
			}
			if sharesOf(h) < 2 {
				continue
			}
			c.Shared += n
			if h&partial != 0 {
				t.partlyOwned.mu.Lock()
				if y := t.partlyOwned.of[uint64(p)<<t.pmd]; y != nil {
					c.Shared -= y.blocks(sharesOf(h), func(owners int64) bool { return owners < 2 })
				}
				t.partlyOwned.mu.Unlock()
			}
		}
	}
	return c
}
