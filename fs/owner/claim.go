package owner

import (
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Interval is the time between two beats of a daemon's heartbeat.
const Interval = time.Second

// Claim is a region that this process uses. Its methods are safe for concurrent use.
type Claim struct {
	r    *pmem.Region
	sb   *layout.Superblock
	seed uint32
	now  func() int64 // ns since the epoch

	mu    sync.Mutex // a leaf; serializes beats, and Release after the last beat
	owner layout.Owner
	beat  layout.Beat
	ended bool // Release has begun to write; protected by mu

	mapped    layout.Mapped // protected by mu
	mappedSeq uint64        // protected by mu

	stop chan struct{} // closed by Stop; nil: the heartbeat is not running
	done sync.WaitGroup
}

// TakeOptions are the choices of Take.
type TakeOptions struct {
	Us       *User         // the claiming user; nil: this process
	Seq      uint64        // of the owner record; above that of any line that recovery may replay
	Interval time.Duration // between beats; 0: no heartbeat, so no process sees the user alive
	Clock    func() int64  // ns since the epoch; nil: the real time
}

// Take claims the region for the user, whatever the verdict v is. It fails with ErrInUse if the
// record has changed since v, or if the heartbeat of a user that did not unmount has advanced
// since: long checks may run between the verdict and Take.
//
// Persistence order:
//  1. heartbeat: our mount id, inode and pid namespace; flush, SFENCE
//  2. owner record: mounted, by us, and no free map is saved; flush, SFENCE
//
// A crash between the two leaves a record and a heartbeat of different mounts. The inode and the
// pid namespace of the user are then unknown, and the record is judged by its silence.
func Take(r *pmem.Region, sb *layout.Superblock, v *Verdict, o TakeOptions) (*Claim, error) {
	u := Us(r)
	if o.Us != nil {
		u = *o.Us
	}
	c := &Claim{r: r, sb: sb, seed: layout.Seed(sb.UUID), now: o.Clock}
	if c.now == nil {
		c.now = func() int64 { return time.Now().UnixNano() }
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	was := v.Record.Owner
	c.owner = layout.Owner{Machine: u.Machine, Mount: id, Boot: u.Boot, PID: u.PID, Start: u.Start, State: layout.OwnerMounted, Mounts: was.Mounts + 1}
	if c.owner.Damaged = was.Damaged; !v.Record.Valid {
		c.owner.Mounts, c.owner.Damaged = 1, false
	}
	c.mapped = layout.Mapped{Boot: u.Boot, Dev: u.Dev, Ino: u.Ino, Any: v.Record.Mapped.Any}
	c.mappedSeq = v.Record.mappedSeq
	c.beat = layout.Beat{Mount: id, Dev: u.Dev, Ino: u.Ino, PIDNS: u.PIDNS, Interval: uint32(o.Interval / time.Millisecond)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	now, err := readOnce(r, sb)
	if err != nil {
		return nil, err
	}
	if now.Valid != v.Record.Valid || now.Valid && now.Owner != was {
		return nil, fmt.Errorf("%w: its owner record was written just now, by process %d", ErrInUse, now.Owner.PID)
	}
	if v.Record.Mounted() && v.Record.beatsSince(&now) {
		return nil, fmt.Errorf("%w: its heartbeat was silent, and beats again", ErrInUse)
	}
	if err := c.putBeat(); err != nil {
		return nil, err
	}
	return c, c.putOwner(o.Seq)
}

// Mounts returns the number of claims of this filesystem so far.
func (c *Claim) Mounts() uint32 { return c.owner.Mounts }

// putOwner stores the owner record with sequence seq. A torn record fails its checksum and means
// that a user died while mounted. In an ordinary file the record is written back at once. Other
// lines are written back later, in any order, and must not meet an older record on disk that says
// clean.
//
// Persistence order: store the line, flush, SFENCE.
func (c *Claim) putOwner(seq uint64) error {
	var l layout.Line
	c.owner.Put(&l)
	if err := c.put(c.sb.OwnerOff, &l, seq); err != nil {
		return err
	}
	return c.r.Sync(c.sb.OwnerOff, layout.LineSize)
}

// putBeat stores the next heartbeat. The heartbeat only has to be visible, not durable.
//
// Persistence order: store the line, flush, SFENCE.
func (c *Claim) putBeat() error {
	var l layout.Line
	c.beat.Count++
	c.beat.Time = c.now()
	c.beat.Put(&l)
	return c.put(c.sb.BeatOff(), &l, c.beat.Count)
}

// put stores one line at region offset off. The caller has locked the goroutine to its OS thread.
func (c *Claim) put(off int64, l *layout.Line, seq uint64) error {
	l.Seal(c.seed, off, seq)
	if err := c.r.Store(off, l[:]); err != nil {
		return err
	}
	if err := c.r.Flush(off, layout.LineSize); err != nil {
		return err
	}
	c.r.Fence()
	return nil
}

// Mapped reports whether the region's record says that programs may map blocks of it.
func (c *Claim) Mapped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mapped.Any
}

// SetMapped records whether programs may map blocks of the region, through the inode of this
// process. ErrLost.
//
// Persistence order: store the line, flush, SFENCE.
func (c *Claim) SetMapped(programs bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(); err != nil {
		return err
	}
	m := c.mapped
	m.Any = programs
	var l layout.Line
	m.Put(&l)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.put(c.sb.MappedOff(), &l, c.mappedSeq+1); err != nil {
		return err
	}
	c.mapped, c.mappedSeq = m, c.mappedSeq+1
	return nil
}

// Beat stores a heartbeat, which shows that the user is alive. If the owner record is no longer
// ours, it returns ErrLost and changes nothing. After Release it does nothing.
func (c *Claim) Beat() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	if err := c.checkLocked(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return c.putBeat()
}

// checkLocked returns ErrLost if the owner record is no longer ours. A record that does not verify
// may be half-written by another process, so Read reads it again. Called with c.mu held.
func (c *Claim) checkLocked() error {
	rec, err := Read(c.r, c.sb)
	switch {
	case err != nil:
		return err
	case !rec.Valid:
		return fmt.Errorf("%w: the owner record is damaged, or of another filesystem", ErrLost)
	case rec.Owner.State != layout.OwnerMounted || rec.Owner.Mount != c.owner.Mount:
		return fmt.Errorf("%w: the owner record is of process %d now", ErrLost, rec.Owner.PID)
	}
	return nil
}

// Start runs the heartbeat in a goroutine until Stop or Release. failed is called with the error of
// a beat: once for each series of failures, and always for ErrLost, after which the heartbeat ends.
func (c *Claim) Start(failed func(error)) {
	d := time.Duration(c.beat.Interval) * time.Millisecond
	if d <= 0 {
		return
	}
	c.stop = make(chan struct{})
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		t := time.NewTicker(d)
		defer t.Stop()
		for well := true; ; {
			select {
			case <-c.stop:
				return
			case <-t.C:
			}
			err := c.Beat()
			if err != nil && (well || errors.Is(err, ErrLost)) {
				failed(err)
			}
			if well = err == nil; errors.Is(err, ErrLost) {
				return
			}
		}
	}()
}

// Stop ends the heartbeat and leaves the record as it is, as the death of the user would.
func (c *Claim) Stop() {
	if c.stop != nil {
		close(c.stop)
		c.done.Wait()
		c.stop = nil
	}
}

// Release marks the region unused: clean, with a saved free map if m names one. seq is the sequence
// of the owner record. damaged means that fsck has to check the filesystem. The heartbeat continues
// until the record is written. If Release returns ErrLost, it has written nothing.
func (c *Claim) Release(seq uint64, damaged bool, m layout.FreeMapRef) error {
	err := c.release(seq, damaged, m)
	c.Stop()
	return err
}

func (c *Claim) release(seq uint64, damaged bool, m layout.FreeMapRef) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkLocked(); err != nil {
		return err
	}
	c.ended = true
	c.owner.State, c.owner.Damaged = layout.OwnerClean, damaged
	if m.Block != 0 {
		c.owner.State, c.owner.Map = layout.OwnerSaved, m
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return c.putOwner(seq)
}
