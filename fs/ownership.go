package fs

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// ownership is this mount's claim on the region, and the contents of the owner record before the
// mount. All fields but lost, and all of the claim but its heartbeat, are immutable after the
// mount.
type ownership struct {
	claim      *owner.Claim // nil: mounted read-only
	seq        uint64       // sequence of the owner record
	wasDamaged bool         // the record said that metadata was found damaged
	saved      layout.Owner // the owner record before the mount, if in state OwnerSaved

	lost atomic.Pointer[error] // set once another process took the region: everything fails with EIO
}

// take returns an error if another process uses the region. Unless the mount is read-only it claims
// the region: from then on the heartbeat beats, until end.
func (o *ownership) take(fs *FS) error {
	v := fs.opt.Owner
	if v == nil {
		var err error
		if v, err = owner.Judge(fs.r, fs.sb, owner.Options{Progress: fs.opt.Progress, Sleep: fs.opt.Sleep}); err != nil {
			return err
		}
	}
	if err := v.Refusal(fs.opt.Takeover, "-o takeover"); err != nil {
		return err
	}
	rec := &v.Record
	o.seq = rec.Seq
	if rec.Valid && rec.Owner.State == layout.OwnerSaved {
		o.saved = rec.Owner
	}
	if o.wasDamaged = rec.Valid && rec.Owner.Damaged; o.wasDamaged {
		fs.warn("damaged metadata was found when the filesystem was mounted before; unmount it and run daxfsd fsck")
	}
	if fs.opt.ReadOnly {
		return nil
	}
	o.seq++
	c, err := owner.Take(fs.r, fs.sb, v, owner.TakeOptions{Seq: o.seq, Interval: fs.opt.BeatInterval, Clock: fs.opt.Clock})
	if err != nil {
		return err
	}
	o.claim = c
	c.Start(func(err error) {
		if errors.Is(err, owner.ErrLost) {
			fs.lose(err)
		} else {
			fs.warn("the heartbeat of this mount cannot be written, so others may take it for dead: %v", err)
		}
	})
	return nil
}

// release writes to the owner record that the filesystem is clean, and where its free map is. seq
// is at least the sequence of every line; damaged means that metadata was found damaged.
func (o *ownership) release(seq uint64, damaged bool, ref layout.FreeMapRef) error {
	return o.claim.Release(max(o.seq, seq)+1, o.wasDamaged || damaged, ref)
}

// end stops the heartbeat, as the death of the daemon does.
func (o *ownership) end() {
	if o.claim != nil {
		o.claim.Stop()
	}
}

// Beat shows that the filesystem is in use, and checks that the region is still this mount's. With
// Options.BeatInterval it happens periodically.
func (fs *FS) Beat() error {
	if fs.owner.claim == nil {
		return nil
	}
	err := fs.owner.claim.Beat()
	if errors.Is(err, owner.ErrLost) {
		fs.lose(err)
	}
	return err
}

// ReadOwner reads the owner record; ok is false if it is torn.
func ReadOwner(r *pmem.Region, sb *layout.Superblock) (o layout.Owner, ok bool, err error) {
	rec, err := owner.Read(r, sb)
	return rec.Owner, rec.Valid, err
}

// lose makes the filesystem refuse everything after another process has taken the region, since
// what this mount has in DRAM about blocks may be wrong by now.
func (fs *FS) lose(err error) {
	e := fmt.Errorf("this mount reads and changes nothing any more, unmount it: %w", err)
	fs.journal.Fail(e)
	if fs.owner.lost.CompareAndSwap(nil, &e) {
		fs.warn("%v", e)
	}
}

// whyFailed returns why the filesystem refuses changes, or everything; "" if it works.
func (fs *FS) whyFailed() string {
	if err := fs.owner.lost.Load(); err != nil {
		return (*err).Error()
	}
	if err := fs.journal.Failure(); err != nil {
		return err.Error()
	}
	return ""
}
