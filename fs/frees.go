package fs

// frees holds the functions that free blocks without owner and reference. They are bound once, so
// that passing one allocates nothing. Bad blocks go offline instead.
type frees struct {
	idle  func(block, n uint64)     // frees n blocks from block on
	pools [16]func(block, n uint64) // idle through each of the allocator's pools
}

// bind makes the functions. After the journal has failed they do nothing: a transaction may have
// been committed although the media failed under it, so its blocks must not be used again.
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

// to returns idle through the caller's pool.
func (f *frees) to(ctx *Caller) func(block, n uint64) {
	return f.pools[ctx.Lane%uint32(len(f.pools))]
}
