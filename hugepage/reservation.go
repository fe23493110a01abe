package hugepage

// StaleAfter is how many allocations later what a reservation keeps is kept no longer, unless
// it has grown meanwhile.
const StaleAfter = 256

// reservations is what growing files keep for themselves, oldest first.
//
// A reservation is an aligned block, PMD or PUD, that one file is filling at the place that a
// large folio wants: file offset and region offset congruent modulo its size. It is not
// allocated beyond what the file has: it is only left out where other requests look,
// until it is stale or there is no other space. So a file that grows slowly among others
// ends up in large folios, and one that stopped growing wastes nothing.
//
//	not kept -> kept          Reservation; Extend
//	kept -> not kept          stale, evicted by others' need, or full
type reservations struct {
	clock uint32        // allocations so far
	queue []reservation // ring
	head  int
	n     int
}

// reservation is an entry of the queue: a PMD or PUD block and when it was queued.
type reservation struct {
	index uint64
	at    uint32
	pud   bool
}

func (h *reservations) push(e reservation) {
	if h.n == len(h.queue) {
		q := make([]reservation, max(64, 2*len(h.queue)))
		for i := range h.n {
			q[i] = h.queue[(h.head+i)%len(h.queue)]
		}
		h.queue, h.head = q, 0
	}
	h.queue[(h.head+h.n)%len(h.queue)] = e
	h.n++
}

func (h *reservations) pop() reservation {
	e := h.queue[h.head]
	h.head = (h.head + 1) % len(h.queue)
	h.n--
	return e
}

// keepPMD keeps a PMD block, if it is broken, or keeps it longer.
func (a *Allocator) keepPMD(p uint64) {
	r := &a.pmds[p]
	if r.bits == 0 {
		return
	}
	r.stamp = a.reservations.clock
	if !r.kept {
		a.partial[r.class].clear(p)
		r.kept = true
		a.reservations.push(reservation{index: p, at: r.stamp})
	}
}

// keepPUD keeps a PUD block, or keeps it longer.
func (a *Allocator) keepPUD(u uint64) {
	r := &a.puds[u]
	r.stamp = a.reservations.clock
	if !r.kept {
		a.unfile(u)
		r.kept = true
		a.reservations.push(reservation{index: u, at: r.stamp, pud: true})
	}
}

// expire counts an allocation, and lets go of what is stale.
func (a *Allocator) expire() {
	h := &a.reservations
	h.clock++
	for h.n > 0 && h.clock-h.queue[h.head].at > StaleAfter {
		e := h.pop()
		if s, kept := a.stampOf(e); kept && h.clock-s <= StaleAfter {
			e.at = s
			if s == h.clock {
				e.at--
			}
			h.push(e)
			continue
		}
		a.letGo(e)
	}
}

// evict lets go of what has been kept longest; false if nothing is kept.
func (a *Allocator) evict() bool {
	for a.reservations.n > 0 {
		e := a.reservations.pop()
		if _, kept := a.stampOf(e); kept {
			a.letGo(e)
			return true
		}
	}
	return false
}

func (a *Allocator) stampOf(e reservation) (stamp uint32, kept bool) {
	if e.pud {
		r := &a.puds[e.index]
		return r.stamp, r.kept
	}
	r := &a.pmds[e.index]
	return r.stamp, r.kept
}

func (a *Allocator) letGo(e reservation) {
	if e.pud {
		if r := &a.puds[e.index]; r.kept {
			r.kept = false
			a.refile(e.index)
		}
	} else if r := &a.pmds[e.index]; r.kept {
		r.kept = false
		a.partial[r.class].set(e.index)
	}
}

// Reservation finds a reservation of an order, PMD or PUD, and allocates up to want blocks from
// offset on in it: base is its first block, n how many were allocated at base+offset. For a PMD
// block the run may go on into free PMD blocks that follow it, and n is at least 1; of a PUD block
// the place may be taken, then n is 0.
//
// A PMD reservation is a free PMD block of the fullest PUD block that has room; a PUD reservation
// the emptiest PUD block, if at least half of it is free PMD blocks. ok is false if there is none.
// Precondition: offset is less than the order's size.
func (a *Allocator) Reservation(order uint8, offset, want uint64) (base, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	if order == a.orders.PUD {
		u, ok := a.emptiest()
		if !ok {
			return 0, 0, false
		}
		a.keepPUD(u)
		base = u << order
		return base, a.grow(base+offset, want, order), true
	}
	size := a.orders.PMDBlocks()
	for {
		if base, n = a.large(AlignUp(offset+want, order) >> order); n != 0 {
			break
		}
		if a.spare() == 0 || !a.evict() {
			if a.drainLocked() {
				continue
			}
			return 0, 0, false
		}
	}
	n = min(n, AlignUp(offset+want, order)) - offset
	if n > want {
		n = want
	}
	a.take(base+offset, n)
	a.keepPMD(base / size)
	a.keepPMD((base + offset + n - 1) / size)
	return base, n, true
}

// emptiest returns the PUD block for a PUD reservation.
func (a *Allocator) emptiest() (uint64, bool) {
	c, ok := a.counts.last()
	if !ok || c < (a.span+1)/2 {
		return 0, false
	}
	return a.clumps[c].next(0)
}

// Extend allocates what is free from a block on, up to want blocks, for the file whose
// reservation of that order, PMD or PUD, the block lies in (0: none), and returns how many
// blocks that is. From a PMD reservation it goes on within the PUD block, unless that is kept. It
// leaves the last SetReserve free PMD blocks alone.
func (a *Allocator) Extend(block, want uint64, order uint8) (n uint64) {
	if want == 0 || block >= a.blocks {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	return a.grow(block, want, order)
}

// grow is Extend.
func (a *Allocator) grow(block, want uint64, order uint8) (n uint64) {
	if block >= a.blocks {
		return 0
	}
	if order == a.orders.PMD {
		// Not into another PUD block, and not into one that somebody else is filling.
		limit := order
		if !a.puds[block>>a.orders.PUD].kept {
			limit = a.orders.PUD
		}
		if block&(1<<limit-1) == 0 {
			return 0
		}
		want = min(want, 1<<limit-block&(1<<limit-1))
	}
	if order == a.orders.PUD {
		// Beyond this PUD block only into free ones that nobody keeps.
		want = min(want, a.blocks-block)
		for end := AlignUp(block+1, order); end < block+want; end += a.orders.PUDBlocks() {
			if r := &a.puds[end>>order]; r.kept || uint64(r.freePMDs) != a.span {
				want = end - block
			}
		}
	}
	n = a.extent(block, want)
	if n == 0 {
		return 0
	}
	a.take(block, n)
	if order == a.orders.PUD {
		a.keepPUD(block >> order)
	}
	if order != 0 {
		a.keepPMD(block >> a.orders.PMD)
		a.keepPMD((block + n - 1) >> a.orders.PMD)
	}
	return n
}

// Emptiest returns the aligned block of an order, PUD, that has the most free PMD blocks
// and that nobody keeps; false if none has one.
func (a *Allocator) Emptiest(order uint8) (base uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.counts.last()
	if !ok {
		return 0, false
	}
	u, ok := a.clumps[c].next(0)
	return u << order, ok
}

// FreeIn returns how many blocks of an aligned block of an order, PUD, are free, and
// whether it is somebody's reservation.
func (a *Allocator) FreeIn(order uint8, base uint64) (free uint64, kept bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drainLocked()
	r := &a.puds[base>>order]
	return uint64(r.free), r.kept
}

// Sparse is a partial PMD block.
type Sparse struct{ Base, Free uint64 }

// Sparse returns up to max of the partial PMD blocks that nobody keeps and of which at
// most used blocks are used, those with the longest runs of free blocks first.
func (a *Allocator) Sparse(used uint64, max int) (s []Sparse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := len(a.partial) - 1; c >= 0 && len(s) < max; c-- {
		for p, ok := a.partial[c].next(0); ok && len(s) < max; p, ok = a.partial[c].next(p + 1) {
			if r := &a.pmds[p]; uint64(r.used) <= used {
				s = append(s, Sparse{p << a.orders.PMD, a.orders.PMDBlocks() - uint64(r.used)})
			}
		}
	}
	return s
}

// Pack is Alloc in partial PMD blocks only. n is 0 if nothing fits there.
func (a *Allocator) Pack(want uint64) (block, n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := fit(a.partial, min(want, a.orders.PMDBlocks()))
	if !ok {
		return 0, 0
	}
	r := &a.pmds[p]
	at, n := a.runIn(a.store.at(r.bits), r.class, want)
	block = p<<a.orders.PMD + at
	a.take(block, n)
	return block, n
}

// Keep makes an aligned block of an order, PMD or PUD, a reservation, whatever is in it: nothing is
// allocated there for others, not even in what is broken, until it is stale.
func (a *Allocator) Keep(order uint8, base uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, n := base>>a.orders.PMD, uint64(1)
	if order == a.orders.PUD {
		a.keepPUD(base >> order)
		n = a.span
	}
	for i := range a.pmds[p:min(p+n, uint64(len(a.pmds)))] {
		a.keepPMD(p + uint64(i))
	}
}
