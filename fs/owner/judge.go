package owner

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Use is the state of a region according to its owner record.
type Use int

// The states of a record; see the package comment.
const (
	Clean Use = iota
	Unused
	InUse
	Unclear
)

// Verdict is what a record means to this process.
type Verdict struct {
	Record Record
	Use    Use
	// Copy is set if the region is, judging by its inode number, a file that was copied while the
	// original was mounted. A copy that was not made at one instant may be damaged.
	Copy bool
	// Why names the user and what was found, for messages.
	Why string
}

// Refusal returns the error for a caller that wants to change the region, or nil if it may. The
// error wraps ErrInUse. takeover permits use of a region whose state is Unclear. option is how the
// user of a command requests takeover.
func (v *Verdict) Refusal(takeover bool, option string) error {
	switch {
	case v.Use == InUse:
		return fmt.Errorf("%w: %s; unmount it there first", ErrInUse, v.Why)
	case v.Use == Unclear && !takeover:
		return fmt.Errorf("%w, perhaps: %s; if it is no longer used, repeat with %s", ErrInUse, v.Why, option)
	}
	return nil
}

// Options are the choices of Judge. The zero value is the usual one.
type Options struct {
	// Us is the judging user; nil: this process.
	Us *User
	// Process returns the state of the process with a number; nil: pmem.ProcessStatus.
	Process func(pid int) (pmem.Process, error)
	// Sleep waits; nil: time.Sleep. The heartbeat is read after each call.
	Sleep func(time.Duration)
	// Progress is called with the number of times the heartbeat was read, and their total; nil: no
	// reports.
	Progress func(stage string, done, total int64)
}

const (
	silentBeats = 5                // intervals without a beat, after which a heartbeat is silent
	looks       = 20               // reads of the heartbeat in each interval
	maxInterval = 10 * time.Second // longest interval between beats that is believed
)

// Judge returns what the region's owner record means. It waits only if the record names a user that
// did not unmount, and whose life or death cannot be determined otherwise. It then waits for up to
// five intervals of the heartbeat.
func Judge(r *pmem.Region, sb *layout.Superblock, o Options) (*Verdict, error) {
	rec, err := Read(r, sb)
	if err != nil {
		return nil, err
	}
	j := &judge{r: r, sb: sb, o: o, v: &Verdict{Record: rec}}
	if j.us = Us(r); o.Us != nil {
		j.us = *o.Us
	}
	if !rec.Mounted() {
		j.mapped()
		return j.v, nil
	}
	if j.o.Process == nil {
		j.o.Process = pmem.ProcessStatus
	}
	if j.o.Sleep == nil {
		j.o.Sleep = time.Sleep
	}
	j.user = rec.user()
	err = j.decide()
	j.mapped()
	return j.v, err
}

// mapped makes the verdict Unclear if programs of this boot may map the region through another
// device node, so that their locks are not seen through ours. Another file is other memory.
func (j *judge) mapped() {
	m, v := &j.v.Record.Mapped, j.v
	if !m.Any || m.Boot != j.us.Boot || m.Boot == [16]byte{} || j.r.RegularFile() || j.us.Dev == 0 || m.Dev == j.us.Dev && m.Ino == j.us.Ino || v.Use > Unused {
		return
	}
	v.Use = Unclear
	v.Why = fmt.Sprintf("programs of this machine may have mapped files of it through another device node (inode %d of device %d:%d), and through this one that cannot be seen: mount it through that node, or end them",
		m.Ino, unix.Major(m.Dev), unix.Minor(m.Dev))
}

type judge struct {
	r        *pmem.Region
	sb       *layout.Superblock
	o        Options
	us, user User
	v        *Verdict
}

// life is what is known about the user's process.
type life int

const (
	unknown life = iota // not visible to this process
	gone
	self
	alive
	stopped
)

func (j *judge) decide() error {
	verdict, rec := j.v, &j.v.Record
	sameBoot := rec.Valid && j.user.Boot == j.us.Boot && j.us.Boot != [16]byte{}
	sameInode := sameBoot && rec.beat && j.user.Ino != 0 && j.user.Dev == j.us.Dev && j.user.Ino == j.us.Ino
	if sameInode && j.r.Locked() {
		verdict.Use, verdict.Why = Unused, j.name(unknown)+" had the lock that this process has now"
		return nil
	}
	life := unknown
	if sameBoot {
		life = j.life()
	}
	verdict.Copy = rec.beat && j.r.RegularFile() && !sameInode
	if verdict.Copy && !sameBoot { // device numbers may change at a reboot
		verdict.Copy = j.user.Ino != j.us.Ino
	}
	switch life {
	case gone, self:
		verdict.Use, verdict.Why = Unused, j.name(life)+" is gone"
		return nil
	}
	advances, life, err := j.watch(life)
	silent := fmt.Sprintf(", and its heartbeat is silent for %v", j.patience())
	switch {
	case err != nil:
		return err
	case advances:
		verdict.Use, verdict.Copy, verdict.Why = InUse, false, j.name(life)+" uses it, by its heartbeat"
	case life == gone:
		verdict.Use, verdict.Why = Unused, j.name(life)+" is gone"
	case sameInode && (life == alive || life == stopped):
		verdict.Use, verdict.Why = InUse, j.name(life)+" is alive"
	case life == stopped:
		verdict.Use, verdict.Why = Unclear, j.name(life)+" is stopped"+silent+": this is the region it uses, or a copy of it"
	case life == alive && !verdict.Copy:
		verdict.Use, verdict.Why = Unclear, j.name(life)+" is alive"+silent
	case life == alive:
		verdict.Use, verdict.Why = Unused, j.name(life)+" uses another region, this one is a copy"
	case sameBoot, !rec.Valid:
		verdict.Use, verdict.Why = Unused, j.name(life)+" is silent"
	case j.user.Machine == j.us.Machine:
		verdict.Use, verdict.Why = Unused, j.name(life)+" is silent"
		verdict.Copy = verdict.Copy || j.r.Durability() == pmem.Volatile && j.r.RegularFile() // memory does not outlive its boot
	default:
		verdict.Use, verdict.Why = Unclear, "its owner record names "+j.name(life)+silent
	}
	return nil
}

// life asks the kernel for the state of the user's process. Called only if the record is of this
// boot.
func (j *judge) life() life {
	if j.us.PIDNS == 0 || j.user.PIDNS != 0 && j.user.PIDNS != j.us.PIDNS {
		return unknown
	}
	if j.user.PID == j.us.PID && j.user.Start == j.us.Start {
		return self
	}
	switch p, err := j.o.Process(int(j.user.PID)); {
	case err == nil && p.Start == j.user.Start && p.Stopped:
		return stopped
	case err == nil && p.Start == j.user.Start:
		return alive
	case j.user.PIDNS == 0, err != nil && !errors.Is(err, os.ErrNotExist):
		return unknown
	}
	return gone
}

// interval returns the time between beats according to the record; 0: the user never beats.
func (j *judge) interval() time.Duration {
	if !j.v.Record.beat { // torn
		return time.Second
	}
	return min(time.Duration(j.v.Record.Beat.Interval)*time.Millisecond, maxInterval)
}

func (j *judge) patience() time.Duration { return silentBeats * j.interval() }

// watch reads the heartbeat until it advances, the user is known to be gone, or the heartbeat has
// been silent for patience.
func (j *judge) watch(l life) (advances bool, _ life, err error) {
	for i, n := 0, int64(silentBeats*looks); int64(i) < n && j.interval() > 0; i++ {
		if j.o.Progress != nil {
			j.o.Progress("looking for a heartbeat", int64(i), n)
		}
		j.o.Sleep(j.interval() / looks)
		rec, err := readOnce(j.r, j.sb)
		if err != nil {
			return false, l, err
		}
		if j.v.Record.beatsSince(&rec) {
			return true, l, nil
		}
		if l != unknown {
			if l = j.life(); l == gone {
				return false, l, nil
			}
		}
	}
	return false, l, nil
}

// name describes the user, for messages.
func (j *judge) name(l life) string {
	switch u := &j.user; {
	case !j.v.Record.Valid:
		return "a process whose owner record is torn"
	case u.Boot == j.us.Boot && (l == alive || l == stopped || l == self || u.PIDNS == j.us.PIDNS):
		return fmt.Sprintf("process %d of this machine", u.PID)
	case u.Boot == j.us.Boot:
		return fmt.Sprintf("process %d of a container of this machine", u.PID)
	case u.Machine == j.us.Machine:
		return fmt.Sprintf("process %d of an earlier boot of this machine, or of one with the same machine id", u.PID)
	default:
		return fmt.Sprintf("process %d of another machine (id %x)", u.PID, u.Machine)
	}
}
