package hugepage

// StaleAfter is the number of allocations after which a reservation that has not grown is dropped.
const StaleAfter = 256

// reservations is the queue of the reservations of growing files, oldest first.
//
// A reservation is an aligned block, PMD or PUD, that one file is filling in the place where a
// large folio needs its blocks: file offset and region offset are congruent modulo the block's
// size. The blocks that the file does not have yet are not allocated. Other requests only pass over
// them, until the reservation is stale or there is no other space. So a file that grows slowly
// among others ends up in large folios, and a file that stopped growing wastes nothing.
//
//	not kept -> kept          Reservation, Extend, Keep
//	kept -> not kept          stale, or evicted because space is short; a PMD
//	                          block also when it gets full or free
type reservations struct {
	clock uint32        // allocations so far; wraps
	queue []reservation // a ring of n entries from head on
	head  int
	n     int
}

// reservation is an entry of the queue.
type reservation struct {
	index uint64 // number of the PMD or PUD block
	at    uint32 // its stamp when it was last queued
	pud   bool   // a PUD block
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

// keepPMD makes a PMD block a reservation if it is partial, or renews its reservation.
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

// keepPUD makes a PUD block a reservation, or renews its reservation.
func (a *Allocator) keepPUD(u uint64) {
	r := &a.puds[u]
	r.stamp = a.reservations.clock
	if !r.kept {
		a.unfile(u)
		r.kept = true
		a.reservations.push(reservation{index: u, at: r.stamp, pud: true})
	}
}

// expire counts an allocation, and drops stale reservations. Called with mu held.
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

// evict drops the reservation at the head of the queue. It returns false if there is none. Called
// with mu held.
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

// stampOf returns the stamp of a queue entry's reservation, and whether the reservation still
// exists. The stamp is when the reservation last grew.
func (a *Allocator) stampOf(e reservation) (stamp uint32, kept bool) {
	if e.pud {
		r := &a.puds[e.index]
		return r.stamp, r.kept
	}
	r := &a.pmds[e.index]
	return r.stamp, r.kept
}

// letGo drops a reservation: other requests find its block again.
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

// Reservation makes a reservation of an order, PMD or PUD, and allocates up to want blocks in it,
// from its block offset on. base is its first block, and n is how many blocks were allocated at
// base+offset. For a PMD reservation the run may continue in free PMD blocks that follow, and n is
// at least 1. For a PUD reservation the block at base+offset may be taken already, then n is 0.
//
// A PMD reservation is a free PMD block of the fullest PUD block that has room. A PUD reservation
// is the PUD block with the most free PMD blocks, if these are at least half of it. ok is false if
// there is no such block. Precondition: offset is less than the order's size in blocks.
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
			if a.emptyPoolsLocked() {
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

// emptiest returns the PUD block for a PUD reservation: the one with the most free PMD blocks, if
// these are at least half of it.
func (a *Allocator) emptiest() (uint64, bool) {
	c, ok := a.counts.last()
	if !ok || c < (a.span+1)/2 {
		return 0, false
	}
	return a.clumps[c].next(0)
}

// Extend allocates up to want free blocks in a row from a block on, and returns how many. The block
// lies in the file's reservation of that order, PMD or PUD (0: in no reservation). A PMD
// reservation extends beyond its PMD block within the PUD block, unless a reservation keeps that.
// Extend leaves the last SetReserve free PMD blocks to AllocChunk.
func (a *Allocator) Extend(block, want uint64, order uint8) (n uint64) {
	if want == 0 || block >= a.blocks {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	return a.grow(block, want, order)
}

// grow is Extend without its clock. Called with mu held.
func (a *Allocator) grow(block, want uint64, order uint8) (n uint64) {
	if block >= a.blocks {
		return 0
	}
	if order == a.orders.PMD {
		// Not into another PUD block, and not out of this PMD block if the PUD block is a
		// reservation.
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
		// Beyond this PUD block only into free PUD blocks that no reservation keeps.
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

// Emptiest returns the first block of the PUD block that has the most free PMD blocks and that no
// reservation keeps. ok is false if no PUD block has a free PMD block. order must be PUD.
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

// FreeIn returns how many blocks of the PUD block at base are free, and whether it is a
// reservation. order must be PUD.
func (a *Allocator) FreeIn(order uint8, base uint64) (free uint64, kept bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emptyPoolsLocked()
	r := &a.puds[base>>order]
	return uint64(r.free), r.kept
}

// Sparse is a partial PMD block: its first block, and how many of its blocks are free.
type Sparse struct{ Base, Free uint64 }

// Sparse returns up to max partial PMD blocks of which at most used blocks are used, those with the
// longest free runs first. It leaves out those that a reservation keeps.
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

// Pack is Alloc in partial PMD blocks only. n is 0 if none of them has a suitable run.
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

// Keep makes an aligned block of an order, PMD or PUD, a reservation, whatever blocks in it are
// used. Until it is stale or evicted, no other request gets blocks there, and none in partial PMD
// blocks of a PUD block either. With order PMD, a free or full block does not become a reservation.
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
