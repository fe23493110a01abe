package fs

// frees are the functions that make blocks free that nobody owns or references: bound once, so that
// passing one allocates nothing. A bad block goes offline instead.
type frees struct {
	idle  func(block, n uint64)
	pools [16]func(block, n uint64) // idle, through an allocator's pool each
}

// bind makes them. After the journal has failed they do nothing: a transaction whose media failed
// may have been committed all the same, so nothing that it changed is used again.
func (f *frees) bind(fs *FS) {
	f.idle = func(block, n uint64) {
		if fs.journal.Failed() {
			return
		}
		for n > 0 {
			m, bad := fs.bad.SameState(block, n)
			if bad {
				fs.bad.Offline(m)
			} else {
				fs.alloc.Free(block, m)
			}
			block, n = block+m, n-m
		}
	}
	for i := range f.pools {
		f.pools[i] = func(block, n uint64) {
			switch {
			case fs.journal.Failed():
			case fs.bad.Has(block, n):
				f.idle(block, n)
			default:
				fs.alloc.FreeTo(uint32(i), block, n)
			}
		}
	}
}

// to is idle through the caller's pool.
func (f *frees) to(ctx *Caller) func(block, n uint64) {
	return f.pools[ctx.Lane%uint32(len(f.pools))]
}
