package owner

import (
	"errors"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// ErrInUse means that a live process uses the region, or that this cannot be excluded.
var ErrInUse = errors.New("region is in use")

// ErrLost means that another process has taken the region from a claim.
var ErrLost = errors.New("another process has taken the region")

// User is a process that uses a region, and the inode through which it reached the region.
type User struct {
	Machine [8]byte
	Boot    [16]byte
	PID     uint32
	Start   uint64 // start time of the process, clock ticks since boot; 0: unknown
	PIDNS   uint32 // inode number of the process's pid namespace; 0: unknown
	Dev     uint64 // st_dev and st_ino of the file or device node
	Ino     uint64
}

// Us returns this process as a user of r.
func Us(r *pmem.Region) User {
	machine, boot := pmem.HostIdentity()
	u := User{Machine: [8]byte(machine[:8]), Boot: boot, PID: uint32(pmem.Self().PID), Start: pmem.Self().Start, PIDNS: pmem.Self().Namespace}
	u.Dev, u.Ino = r.Inode()
	return u
}

// Record is what the owner record and the heartbeat contain about the last user.
type Record struct {
	Owner layout.Owner
	Valid bool   // the owner record verifies; otherwise its user died while writing it
	Seq   uint64 // of the owner record, if valid
	Beat  layout.Beat
	beat  bool // the heartbeat is valid, and of the same mount as a valid owner record
	// Mapped says by which inode programs of this boot map the region; Any is false if that line is
	// torn, which it is only while the first program is about to.
	Mapped    layout.Mapped
	mappedSeq uint64
}

// Mounted reports whether the record was left by a user that did not unmount.
func (rec *Record) Mounted() bool { return !rec.Valid || rec.Owner.State == layout.OwnerMounted }

// beatsSince reports whether a heartbeat was written between the reading of rec and of now.
func (rec *Record) beatsSince(now *Record) bool {
	return now.beat && (now.Beat.Mount != rec.Beat.Mount || now.Beat.Count != rec.Beat.Count)
}

// user returns the last user. The inode and pid namespace are zero if the heartbeat is torn.
func (rec *Record) user() User {
	o := &rec.Owner
	u := User{Machine: o.Machine, Boot: o.Boot, PID: o.PID, Start: o.Start}
	if rec.beat {
		u.PIDNS, u.Dev, u.Ino = rec.Beat.PIDNS, rec.Beat.Dev, rec.Beat.Ino
	}
	return u
}

// Read reads the record. A line that is being written may look torn, so it is read again, up to
// three times.
func Read(r *pmem.Region, sb *layout.Superblock) (rec Record, err error) {
	for try := range 4 {
		if try > 0 {
			time.Sleep(time.Millisecond)
		}
		if rec, err = readOnce(r, sb); err != nil || rec.Valid && rec.beat {
			break
		}
		if rec.Valid && rec.Owner.State != layout.OwnerMounted {
			break
		}
	}
	return rec, err
}

func readOnce(r *pmem.Region, sb *layout.Superblock) (rec Record, err error) {
	seed := layout.Seed(sb.UUID)
	var l layout.Line
	if err := r.LoadLine(sb.OwnerOff, (*[layout.LineSize]byte)(&l)); err != nil {
		return rec, err
	}
	rec.Owner.Get(&l)
	if rec.Valid = l.Valid(seed, sb.OwnerOff); rec.Valid {
		rec.Seq = l.Seq()
	}
	if err := r.LoadLine(sb.BeatOff(), (*[layout.LineSize]byte)(&l)); err != nil {
		return rec, err
	}
	rec.Beat.Get(&l)
	rec.beat = l.Valid(seed, sb.BeatOff()) && (!rec.Valid || rec.Beat.Mount == rec.Owner.Mount)
	if err := r.LoadLine(sb.MappedOff(), (*[layout.LineSize]byte)(&l)); err != nil {
		return rec, err
	}
	if l.Valid(seed, sb.MappedOff()) {
		rec.Mapped.Get(&l)
		rec.mappedSeq = l.Seq()
	}
	return rec, nil
}
