package lease

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/refcnt"
)

// Errors of this package.
var (
	// ErrBudget: the region has as many locks, or files with a slot, as it may have.
	ErrBudget = errors.New("lease: no more grants on this region")
	// ErrUnknown: there is no such grant of this file.
	ErrUnknown = errors.New("lease: no such grant")
	// ErrNotLocked: the lock that identifies the grant is not seen.
	ErrNotLocked = errors.New("lease: the lock of the grant is not seen")
	// ErrStale: the file's layout has changed since the grant.
	ErrStale = errors.New("lease: the layout has changed since the grant")
)

const (
	// Budget is how many locks the grants of a region may need. The kernel keeps the locks of an
	// inode in a list: with 4096 of them a lock or a query takes some 50 µs.
	Budget = 4096
	// userShare is the part of Budget that one user other than root may take.
	userShare = Budget / 2

	// Quarantine is how long blocks are kept after their lease has ended: a process that dies gives
	// up its mappings before its io_uring has come to rest.
	Quarantine = 100 * time.Millisecond
	// Unconfirmed is how long a promised grant may wait for its confirmation.
	Unconfirmed = 10 * time.Second
)

// Locks tells which locks other open file descriptions hold on the region. pmem.Region does.
type Locks interface {
	FirstLock(off, n int64) (lo, hi int64, ok bool, err error)
	Locks(off, n int64, f func(lo, hi int64) bool) error
}

// Part is a run of blocks that is contiguous in the file and in the region. All numbers are blocks.
type Part struct{ Logical, Block, N uint64 }

// Grant is what a program may map.
type Grant struct {
	// Set by the caller of Add, and immutable since.
	Ino      uint64 // inode number of the file; 0 once that is gone (protected by Table.mu)
	Lo, Hi   uint64 // file blocks [Lo, Hi); those in no part are holes
	Parts    []Part // in ascending order
	Writable bool
	Handle   uint64 // of the open file
	UID      uint32
	PID      uint32 // of the thread that asked; a hint

	// Set by Add, and immutable since.
	ID         uint64
	Generation uint64 // of the slot
	Slot       int64  // region offset in bytes
	Since      time.Time

	state state     // protected by Table.mu
	stale bool      // protected by Table.mu
	seen  uint64    // protected by Table.mu: how often Confirm has seen the lock
	ended time.Time // protected by Table.mu
}

type state uint8

const (
	promised state = iota
	confirmed
	ended
	gone
)

// locks returns how many locks a program takes for the grant at most.
func (g *Grant) locks() int { return len(g.Parts) + 1 }

// Blocks returns how many blocks of the region the grant is of.
func (g *Grant) Blocks() (n uint64) {
	for _, p := range g.Parts {
		n += p.N
	}
	return n
}

// Options are what a Table needs of its user. All are set.
type Options struct {
	Locks   Locks
	Folios  *refcnt.Table
	Block   int64                           // size of a block in bytes
	SlotOff int64                           // region offset of the first slot in bytes
	Slots   int                             // how many there are
	LastID  uint64                          // the first grant gets the next id
	Idle    func(block, n uint64)           // frees blocks
	Ended   func(ino uint64, g *Grant)      // is called once for each confirmed grant when its lease has ended; ino is 0 if the file is gone
	Now     func() time.Time                // the clock
	Store   func(off int64, v uint64) error // stores 8 bytes to the region
	Load    func(off int64) (uint64, error) // loads 8 bytes from it
}

// Table is the grants and found leases of a mount.
type Table struct {
	o Options

	// grants counts grants and found leases: zero nearly always. ending counts those among
	// them that have ended.
	grants, ending atomic.Int64

	mu      sync.Mutex
	byID    map[uint64]*Grant // protected by mu: all but the gone ones
	files   map[uint64]*file  // protected by mu: those with grants, by inode number
	order   []*Grant          // protected by mu: byID in the order of their ids
	next    int               // protected by mu: index in order where the next Sweep begins
	lastID  uint64            // protected by mu
	freeIDs uint64            // protected by mu: how many ids after lastID nobody had locked
	asked   map[uint64]int    // protected by mu: promised grants by open file
	found   []found           // protected by mu: in the order in which Sweep looks at them
	used    int               // protected by mu: locks of all grants that have not ended
	byUser  map[uint32]int    // protected by mu: these locks by user
	slots   slots             // protected by mu

	sweeping sync.Mutex // serialises Sweep; taken before mu
}

// file is a file with grants.
type file struct {
	slot     int // index
	gen      uint64
	changing bool
	grants   []*Grant
}

// found is blocks that a mount found locked.
type found struct {
	block, n uint64
	ended    time.Time // when a Sweep saw that nobody locks them any more; zero: not yet
}

// New returns a table without grants.
func New(o Options) *Table {
	return &Table{o: o, lastID: o.LastID, byID: map[uint64]*Grant{}, files: map[uint64]*file{}, byUser: map[uint32]int{}, asked: map[uint64]int{}}
}

// Any reports whether there are grants or found leases. It takes no lock: callers in the way of
// other work ask it first.
func (t *Table) Any() bool { return t.grants.Load() != 0 }

// Ending reports whether there are grants whose leases have ended, and whose blocks are still kept.
func (t *Table) Ending() bool { return t.ending.Load() != 0 }

// Count returns how many grants and found leases there are, with those in quarantine.
func (t *Table) Count() int { return int(t.grants.Load()) }

// triedIDs is how many locks of ids in a row Add passes over before it gives up.
const triedIDs = 64

// idsAtOnce is how many ids are looked for at once.
const idsAtOnce = 1024

// Find leases the blocks of the region's first n that programs have locked, whom a former daemon
// gave a grant, and makes the generations of all slots new. take takes blocks without an owner from
// the allocator, see refcnt.Table.LeaseFound. What is neither owned nor free is not leased:
// programs that lock it were not given it.
//
// Precondition: owners are known to the folio table, and nobody else uses it or the Table.
func (t *Table) Find(n uint64, take func(block, n uint64) (k uint64, ok bool)) error {
	var locked []found
	end := uint64(0)
	err := t.o.Locks.Locks(0, int64(n)*t.o.Block, func(lo, hi int64) bool {
		first, last := max(uint64(lo/t.o.Block), end), uint64((hi+t.o.Block-1)/t.o.Block)
		if first < last {
			locked = append(locked, found{block: first, n: last - first})
			end = last
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("listing leased blocks: %w", err)
	}
	for _, f := range locked {
		t.o.Folios.LeaseFound(f.block, f.n, take, func(block, n uint64) { t.found = append(t.found, found{block: block, n: n}) })
	}
	t.grants.Add(int64(len(t.found)))
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.startSlotsLocked()
}

// Add promises a grant: it leases the blocks of g, and gives g an id and its file a slot. size is
// that of the file in bytes. ErrBudget.
//
// Precondition: the caller keeps the parts the file's own until Add returns.
func (t *Table) Add(g *Grant, size uint64) error {
	id, err := t.newID()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := g.locks()
	if t.used+n > Budget || g.UID != 0 && t.byUser[g.UID]+n > userShare {
		return ErrBudget
	}
	f := t.files[g.Ino]
	if f == nil {
		if f, err = t.takeSlotLocked(size); err != nil {
			return err
		}
		t.files[g.Ino] = f
	}
	for _, p := range g.Parts {
		t.o.Folios.Lease(p.Block, p.N, g.Writable)
	}
	g.ID, g.Generation, g.Slot, g.Since = id, f.gen, t.slotOff(f.slot), t.o.Now()
	g.state = promised
	t.asked[g.Handle]++
	f.grants = append(f.grants, g)
	t.byID[g.ID] = g
	t.order = append(t.order, g)
	t.used += n
	t.byUser[g.UID] += n
	t.grants.Add(1)
	return nil
}

// newID returns an id that no grant has and no program has locked: an id that a former daemon gave
// out, or another program's lock, must not be taken for the lock of the new grant. ErrBudget.
func (t *Table) newID() (uint64, error) {
	for range triedIDs {
		if id, ok := t.nextID(); ok {
			return id, nil
		}
		if err := t.findIDs(); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: programs lock ids that they were not given", ErrBudget)
}

// nextID returns the next of the free ids that no grant has.
func (t *Table) nextID() (id uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.freeIDs > 0 {
		t.freeIDs--
		if t.lastID++; t.byID[t.lastID] == nil {
			return t.lastID, true
		}
	}
	return 0, false
}

// findIDs asks the kernel which of the next ids nobody has locked, or passes over some that are
// locked. It asks for many at once: among thousands of locks a query takes 100 µs. Called without
// mu, which is not held while the kernel is asked.
func (t *Table) findIDs() error {
	t.mu.Lock()
	last := t.lastID % protocol.MaxID
	t.mu.Unlock()
	n := min(idsAtOnce, protocol.MaxID-last)
	off := protocol.Identity(last+1, false)
	free, locked := n, uint64(0)
	err := t.o.Locks.Locks(off, int64(2*n), func(lo, hi int64) bool {
		free, locked = uint64(lo-off)/2, uint64(hi-lo+1)/2
		return false
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.freeIDs > 0 || t.lastID%protocol.MaxID != last {
		return nil // another caller has found some
	}
	if t.lastID, t.freeIDs = last, free; free == 0 {
		t.lastID = last + min(locked, n)
	}
	return nil
}

// Confirm makes the lease of a grant the lock's, once it has seen the lock. ErrUnknown;
// ErrNotLocked; ErrStale if the file's layout has changed since, and the program should ask again.
func (t *Table) Confirm(ino, id, generation uint64) error {
	g, err := t.Lookup(ino, id)
	if err != nil {
		return err
	}
	locked, err := t.locked(g)
	if err != nil {
		return err
	}
	if !locked {
		return ErrNotLocked
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case g.state == gone || g.state == ended:
		return ErrUnknown
	case g.stale || generation != g.Generation:
		return ErrStale
	}
	if g.state == promised {
		t.answeredLocked(g)
	}
	g.state = confirmed
	g.seen++
	return nil
}

// uncountLocked takes the locks of a grant from those in use: the program has none any more. Called
// with mu held.
func (t *Table) uncountLocked(g *Grant) {
	t.used -= g.locks()
	if t.byUser[g.UID] -= g.locks(); t.byUser[g.UID] == 0 {
		delete(t.byUser, g.UID)
	}
}

// answeredLocked is called when a grant is no longer promised. Called with mu held.
func (t *Table) answeredLocked(g *Grant) {
	if t.asked[g.Handle]--; t.asked[g.Handle] == 0 {
		delete(t.asked, g.Handle)
	}
}

// Lookup returns a grant of a file that has not ended. ErrUnknown.
func (t *Table) Lookup(ino, id uint64) (*Grant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.byID[id]
	if g == nil || g.Ino != ino || g.state > confirmed {
		return nil, ErrUnknown
	}
	return g, nil
}

// locked reports whether the identity of a grant is locked.
func (t *Table) locked(g *Grant) (bool, error) {
	_, _, ok, err := t.o.Locks.FirstLock(protocol.Identity(g.ID, g.Writable), 1)
	return ok, err
}

// CloseHandle ends the grants that were promised to an open file and are not confirmed.
func (t *Table) CloseHandle(handle uint64) {
	t.mu.Lock()
	n := t.asked[handle]
	t.mu.Unlock()
	if n > 0 {
		t.end(func(g *Grant) bool { return g.Handle == handle && g.state == promised })
	}
}

// end makes grants that the condition holds for gone. It is evaluated with mu held.
func (t *Table) end(cond func(g *Grant) bool) {
	var over []*Grant
	t.mu.Lock()
	for _, g := range t.order {
		if cond(g) {
			over = append(over, g)
		}
	}
	t.removeLocked(over)
	t.mu.Unlock()
	for _, g := range over {
		for _, p := range g.Parts {
			t.o.Folios.Unlease(p.Block, p.N, g.Writable, t.o.Idle)
		}
		if !g.ended.IsZero() {
			t.ending.Add(-1)
		}
	}
}

// removeLocked takes grants out of the table. Called with mu held.
func (t *Table) removeLocked(over []*Grant) {
	if len(over) == 0 {
		return
	}
	for _, g := range over {
		if g.state == promised {
			t.answeredLocked(g)
			t.uncountLocked(g)
		}
		g.state = gone
		delete(t.byID, g.ID)
	}
	isGone := func(g *Grant) bool { return g.state == gone }
	swept := map[uint64]bool{}
	for _, g := range over { // each file once: a file may have thousands of grants
		if f := t.files[g.Ino]; f != nil && !swept[g.Ino] {
			swept[g.Ino] = true
			f.grants = slices.DeleteFunc(f.grants, isGone)
			t.dropSlotLocked(g.Ino, f)
		}
	}
	t.order = slices.DeleteFunc(t.order, isGone)
	t.grants.Add(-int64(len(over)))
}
