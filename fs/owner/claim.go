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

// Interval is how often a daemon's heartbeat beats.
const Interval = time.Second

// Claim is a region that this process uses. Its methods are safe for concurrent use.
type Claim struct {
	r    *pmem.Region
	sb   *layout.Superblock
	seed uint32
	now  func() int64 // ns since the epoch

	mu    sync.Mutex // a leaf; orders beats, and the last of them before Release
	owner layout.Owner
	beat  layout.Beat
	ended bool // released

	stop chan struct{} // closed by Stop; nil: no heartbeat
	done sync.WaitGroup
}

// TakeOptions are the choices of Take.
type TakeOptions struct {
	Us       *User         // who claims; nil: this process
	Seq      uint64        // of the owner record: larger than of any line that recovery may replay
	Interval time.Duration // between beats; 0: none, and so nobody sees that the user is alive
	Clock    func() int64  // ns since the epoch; nil: the real time
}

// Take makes the region ours, whatever verdict v was, unless its record has changed since, or the
// heartbeat of who did not unmount has: long checks may lie between the verdict and Take.
//
// Persistence order:
//  1. heartbeat: our mount id, inode and pid namespace; flush, SFENCE
//  2. owner record: mounted, by us, and no free map is saved; flush, SFENCE
//
// A crash between the two leaves a record whose heartbeat is of another mount: what that would say
// (inode and pid namespace) is then not known, and the record is judged by its silence.
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

// Mounts counts the claims of this filesystem.
func (c *Claim) Mounts() uint32 { return c.owner.Mounts }

// putOwner stores the owner record. A torn one fails its checksum and counts as
// "mounted by somebody who died". In an ordinary file it is written back at once: what is
// written back later, in whatever order, must not meet an older one, that says clean.
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

// putBeat stores the next heartbeat. It need not last, only be seen.
//
// Persistence order: store the line, flush, SFENCE.
func (c *Claim) putBeat() error {
	var l layout.Line
	c.beat.Count++
	c.beat.Time = c.now()
	c.beat.Put(&l)
	return c.put(c.sb.BeatOff(), &l, c.beat.Count)
}

// put stores one line. The caller is on one thread.
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

// Beat shows that we are alive. It returns ErrLost, and changes nothing, if the owner record is not
// ours any more.
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

// checkLocked returns ErrLost if the owner record is not ours any more; c.mu is held. One that does
// not verify may be half-written by another process, so it is looked at again.
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

// Start has the heartbeat beat until Stop or Release, in a goroutine. failed is told why a beat
// could not be made: once for each row of failures, and always of ErrLost, after which there is no
// beat any more.
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

// Stop ends the heartbeat, as the user's death does: the record stays.
func (c *Claim) Stop() {
	if c.stop != nil {
		close(c.stop)
		c.done.Wait()
		c.stop = nil
	}
}

// Release makes the region nobody's: clean, with a saved free map if m names one. damaged: fsck has
// to look at it. The heartbeat goes on until that is written. After ErrLost nothing was written.
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
