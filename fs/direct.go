package fs

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/pagecache"
)

// DirectMode selects which grants a mount makes: whether programs may map files' own memory.
type DirectMode uint8

const (
	DirectOff   DirectMode = iota // none; what programs map since a former mount is kept all the same
	DirectRead                    // to read
	DirectWrite                   // to read and to write
)

// String returns the value of the mount option.
func (m DirectMode) String() string { return [...]string{"off", "ro", "rw"}[m] }

// Direct serves programs that map the blocks of files. It keeps what they map from being reused or
// moved, and tells them when a file's layout changes.
type Direct struct {
	fs       *FS          // immutable
	leases   *lease.Table // immutable once mounted; nil while the mount is read-only
	swept    atomic.Int64 // when a caller that waits for space last swept all leases, in ns since started
	toldFull atomic.Int64 // when full last said something, in ns since started; 0: never
	failed   atomic.Bool  // a slot could not be stored: no more grants
	record   sync.Mutex   // makes a new grant, and the record that there are any, one step; taken before lease.Table.mu
}

// start leases what programs map since a former mount. It is called once the owners of all blocks
// are known, and before anything is allocated or freed.
func (d *Direct) start(fs *FS) error {
	d.fs = fs
	if fs.opt.ReadOnly {
		return nil
	}
	locks := fs.opt.Locks
	if locks == nil {
		locks = fs.r
	}
	var first [8]byte
	if _, err := rand.Read(first[:]); err != nil {
		return err
	}
	d.leases = lease.New(lease.Options{
		Locks: locks, Folios: fs.table, Block: layout.BlockSize,
		SlotOff: fs.sb.SlotOff, Slots: int(fs.sb.Slots),
		LastID: binary.LittleEndian.Uint64(first[:]) % (protocol.MaxID / 2),
		Idle:   fs.free.idle,
		Ended:  d.ended,
		Now:    time.Now,
		Store:  fs.r.Store8,
		Load: func(off int64) (uint64, error) {
			var b [8]byte
			err := fs.r.Load(off, b[:])
			return binary.LittleEndian.Uint64(b[:]), err
		},
	})
	if err := d.leases.Find(fs.sb.Blocks(), d.takeFree); err != nil {
		return fmt.Errorf("finding what programs map of the region: %w", err)
	}
	// No grant has the id 0.
	if _, _, locked, err := locks.FirstLock(protocol.Identity(0, false), 2); err == nil && locked {
		fs.warn("a process has locked the whole region %s, as if it mapped all files and all free space: nothing becomes free, and programs get no grants, until it ends; fuser(1) names it", fs.r.Path())
	}
	if d.any() || fs.owner.claim.Mapped() {
		return fs.owner.claim.SetMapped(d.any())
	}
	return nil
}

// add makes a promised grant. The first one is recorded before the program knows of it, so that no
// mount through another device node overlooks it. Called with io and mu held.
//
// Persistence order: store the record, flush, SFENCE (owner.Claim.SetMapped).
func (d *Direct) add(g *lease.Grant, size uint64) error {
	d.record.Lock()
	defer d.record.Unlock()
	if claim := d.fs.owner.claim; !claim.Mapped() {
		if err := claim.SetMapped(true); err != nil {
			return err
		}
	}
	return d.leases.Add(g, size)
}

// recordNone records that no program maps blocks any more, if that is so.
func (d *Direct) recordNone() {
	if d.leases == nil || !d.fs.owner.claim.Mapped() {
		return
	}
	d.record.Lock()
	defer d.record.Unlock()
	if !d.any() {
		if err := d.fs.owner.claim.SetMapped(false); err != nil {
			d.fs.warn("it cannot be recorded that no program maps files any more: %v", err)
		}
	}
}

// left says, at an unmount, what programs still map.
func (d *Direct) left() {
	d.queried(d.Sweep())
	d.recordNone()
	if d.any() && len(d.leases.List()) > 0 { // the others have ended just now
		d.fs.warn("%s: what they map stays in use, and the next mount keeps it", d.holders())
	}
}

// fullInterval is the least time between two messages that programs hold space which is wanted.
const fullInterval = time.Minute

// full says which programs hold blocks that no file has, when space is wanted and does not come.
func (d *Direct) full() {
	if !d.any() || d.fs.table.LeasedDeferred() == 0 {
		return
	}
	now, last := int64(time.Since(started)), d.toldFull.Load()
	if last != 0 && now-last < int64(fullInterval) || !d.toldFull.CompareAndSwap(last, now) {
		return
	}
	d.fs.warn("the filesystem is full, and %s, of which %d KiB are of no file any more and come back when they end", d.holders(), d.fs.table.LeasedDeferred()*layout.BlockSize>>10)
}

// holders describes the programs that map files, for messages.
func (d *Direct) holders() string {
	pids, blocks := map[uint32]bool{}, uint64(0)
	for _, i := range d.leases.List() {
		blocks += i.Blocks
		if i.PID != 0 {
			pids[i.PID] = true
		}
	}
	s := fmt.Sprintf("programs map %d KiB of the region", blocks*layout.BlockSize>>10)
	const most = 8
	if len(pids) == 0 || len(pids) > most {
		return s
	}
	list := slices.Sorted(maps.Keys(pids))
	return s + ", by the grants of threads " + strings.Trim(fmt.Sprint(list), "[]")
}

// takeFree takes free blocks from the allocator that programs have locked. It reports whether the
// first k of n blocks were free.
func (d *Direct) takeFree(block, n uint64) (k uint64, ok bool) {
	alloc := d.fs.alloc
	for free := alloc.IsFree(block, 1); k < n && alloc.IsFree(block+k, 1) == free; k++ {
		ok = free
	}
	return k, ok && alloc.Reserve(block, k)
}

// any reports whether any program may map blocks of the region.
func (d *Direct) any() bool { return d.leases != nil && d.leases.Any() }

// beginChange is called before a remap of a file's extents is made durable. If a program may map
// file blocks that get another block or state by it, the program sees from now on that its grant is
// stale, and beginChange returns true: endChange must follow when the change has happened or was
// given up. Called with io held.
func (d *Direct) beginChange(m *remap) bool {
	if !d.any() {
		return false
	}
	lo, hi := m.moved()
	if lo >= hi {
		return false
	}
	begun, err := d.leases.BeginChange(m.in.ino, lo, hi)
	d.check(err)
	return begun
}

// endChange ends a change of a file that beginChange has begun. Called with io held.
func (d *Direct) endChange(in *inode) { d.check(d.leases.EndChange(in.ino)) }

// resized tells the programs that map a file its new size. Called with mu held.
func (d *Direct) resized(in *inode) {
	if d.any() {
		d.check(d.leases.Resize(in.ino, in.size.Load()))
	}
}

// stale is called when the file gets a right that a write takes away: a program that goes on to
// store has to ask again, and takes it away by that. Called with mu held.
func (d *Direct) stale(in *inode) {
	if d.any() {
		d.check(d.leases.Stale(in.ino))
	}
}

// Stores reports whether a program may store to a file through a grant, so that its times change
// without any request.
func (d *Direct) Stores(ino uint64) bool {
	if !d.any() {
		return false
	}
	_, writable := d.leases.OfFile(ino)
	return writable > 0
}

// storesLocked is Stores for all programs, also those that have a grant of a former mount. Called
// with mu held, and the extents loaded.
func (d *Direct) storesLocked(in *inode) bool {
	return in.isReg() && d.notLeased(in, 0, maxBlock+1) <= maxBlock
}

// Mapped reports whether a program has a grant of a file.
func (d *Direct) Mapped(ino uint64) bool {
	if !d.any() {
		return false
	}
	all, _ := d.leases.OfFile(ino)
	return all > 0
}

// gone is called when an inode has been freed.
func (d *Direct) gone(ino uint64) {
	if d.any() {
		d.check(d.leases.Drop(ino))
	}
}

// check notes that a slot could not be stored: programs do not see changes any more, so they get no
// new grants.
func (d *Direct) check(err error) {
	if err != nil && !d.failed.Swap(true) {
		d.fs.bad.Faulted(err)
		d.fs.warn("programs that map files may not see that they are changed, and no more grants are made: %v; unmount, and run daxfsd fsck", err)
	}
}

// ended is called when the lease of a grant has ended.
func (d *Direct) ended(ino uint64, g *lease.Grant) {
	if ino != 0 {
		d.fs.defrag.leaseEnded(ino, g.Lo, g.Hi)
	}
	if !g.Writable || ino == 0 {
		return
	}
	if in, e := d.fs.get(ino); e == 0 {
		d.fs.touch(in) // the program may have stored at any time until now
		d.fs.put(in, 1)
	}
}

// sweepInterval is the least time between two sweeps of all leases by callers that wait for space.
const sweepInterval = 20 * time.Millisecond

// sweep looks whether leases have ended, for a caller that waits for space or for a grant. It does
// not wait for others that look.
func (d *Direct) sweep() {
	if !d.any() {
		return
	}
	now, last := int64(time.Since(started)), d.swept.Load()
	if now-last < int64(sweepInterval) || !d.swept.CompareAndSwap(last, now) {
		return
	}
	d.queried(d.leases.TrySweep())
}

// ending reports whether blocks become free in a moment, since their leases have ended.
func (d *Direct) ending() bool {
	return d.any() && d.leases.Ending() && d.fs.table.LeasedDeferred() > 0
}

// Sweep looks whether leases have ended: all of them.
func (d *Direct) Sweep() error {
	if !d.any() {
		return nil
	}
	return d.leases.Sweep(math.MaxInt)
}

// queried reports whether a sweep could query the locks on the region. It warns if not.
func (d *Direct) queried(err error) bool {
	if err != nil {
		d.fs.warn("the locks on the region cannot be queried: %v", err)
	}
	return err == nil
}

const (
	sweepMost = 256                  // leases that sweepSome looks at, at least
	sweepTime = 5 * time.Millisecond // for how long it looks at more
)

// sweepSome looks at some leases, in turns. It comes to all of them if that is quick, as it is when
// a program has died with thousands: then there are few locks.
func (d *Direct) sweepSome() {
	defer d.recordNone()
	if !d.any() {
		return
	}
	for left, start := d.leases.Count(), time.Now(); left > 0; left -= sweepMost {
		if !d.queried(d.leases.Sweep(sweepMost)) || time.Since(start) >= sweepTime {
			return
		}
	}
}

// leased reports whether a program may map any of n blocks.
func (d *Direct) leased(block, n uint64) bool { return d.fs.table.Leased(block, n) }

// redirectLocked is asked whether the blocks of e, which are bad or not, may be replaced by others:
// not while a program has a grant to write to them, since it would store to the old ones. Then the
// error of the media is the answer. e is cut to blocks that have the same answer. Called with io
// held.
func (d *Direct) redirectLocked(e *pagecache.Extent, bad bool) error {
	if !bad {
		return nil
	}
	n, writable := d.fs.table.LeasedToWrite(e.Block, uint64(e.Len))
	*e = part(*e, e.Logical, e.Logical+n)
	if !writable {
		return nil
	}
	return d.fs.bad.Check(e.Block, 1)
}

// leasedToWrite reports whether programs may store to file block lo, and of how many blocks up to
// hi the same is true. No program may store to shared or unwritten blocks, whatever it has locked:
// a grant to write is of neither, and its blocks do not become either while it lasts. Called with
// io or mu held.
func (d *Direct) leasedToWrite(in *inode, lo, hi uint64) (n uint64, writable bool) {
	if !d.any() {
		return hi - lo, false
	}
	e, ok := in.space.Lookup(lo)
	if !ok {
		return min(hi, e.Logical) - lo, false
	}
	if e.Flags&(layout.ExtentUnwritten|layout.ExtentShared) != 0 {
		return min(hi, e.End()) - lo, false
	}
	return d.fs.table.LeasedToWrite(e.BlockAt(lo), min(hi, e.End())-lo)
}

// notLeased returns the end of the part of file blocks [lo, hi) that no program may store to.
// Called with io or mu held.
func (d *Direct) notLeased(in *inode, lo, hi uint64) uint64 {
	for at := lo; at < hi; {
		n, writable := d.leasedToWrite(in, at, hi)
		if writable {
			return at
		}
		at += n
	}
	return hi
}

// Direct returns what serves programs that map files' own memory.
func (fs *FS) Direct() *Direct { return &fs.direct }

// moved returns the range [lo, hi) of file blocks outside of which a remap leaves each block where
// it is, and written or unwritten as it is; lo >= hi if it moves none.
func (m *remap) moved() (lo, hi uint64) {
	lo = math.MaxUint64
	differ := func(e pagecache.Extent, others []pagecache.Extent) {
		at := e.Logical
		for _, o := range others {
			from, to := max(at, o.Logical), min(e.End(), o.End())
			if from >= to {
				continue
			}
			if at < from {
				lo, hi = min(lo, at), max(hi, from)
			}
			if o.BlockAt(from) != e.BlockAt(from) || (o.Flags^e.Flags)&layout.ExtentUnwritten != 0 {
				lo, hi = min(lo, from), max(hi, to)
			}
			at = to
		}
		if at < e.End() {
			lo, hi = min(lo, at), max(hi, e.End())
		}
	}
	for _, e := range m.old {
		differ(e, m.now)
	}
	for _, e := range m.now {
		differ(e, m.old)
	}
	return lo, hi
}
