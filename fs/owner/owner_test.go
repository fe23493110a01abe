package owner_test

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

const size = 1 << 20

// super is the superblock of a region that holds only an owner record and a heartbeat.
var super = &layout.Superblock{UUID: [16]byte{1}, OwnerOff: 2048}

// region returns a region in a file, whose memory the race detector does not watch, with a clean
// record.
func region(t *testing.T) *pmem.Region {
	t.Helper()
	path := t.TempDir() + "/region"
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	put(t, r, layout.Owner{Mounts: 7}, layout.Beat{})
	return r
}

// put stores an owner record and a heartbeat, as another process might.
func put(t *testing.T, r *pmem.Region, o layout.Owner, b layout.Beat) {
	t.Helper()
	var l layout.Line
	o.Put(&l)
	l.Seal(layout.Seed(super.UUID), super.OwnerOff, 1)
	if err := r.Store(super.OwnerOff, l[:]); err != nil {
		t.Fatal(err)
	}
	l = layout.Line{}
	b.Put(&l)
	l.Seal(layout.Seed(super.UUID), super.BeatOff(), b.Count)
	if err := r.Store(super.BeatOff(), l[:]); err != nil {
		t.Fatal(err)
	}
}

// read returns the record and fails the test on an error.
func read(t *testing.T, r *pmem.Region) owner.Record {
	t.Helper()
	rec, err := owner.Read(r, super)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// take claims the region as another process does.
func take(t *testing.T, r *pmem.Region, u owner.User, interval time.Duration) *owner.Claim {
	t.Helper()
	rec := read(t, r)
	c, err := owner.Take(r, super, &owner.Verdict{Record: rec}, owner.TakeOptions{Us: &u, Seq: rec.Seq + 1, Interval: interval})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestJudge checks each rule of the table of the package comment, and the messages.
func TestJudge(t *testing.T) {
	us := func(region *pmem.Region) owner.User {
		user := owner.User{Machine: [8]byte{1}, Boot: [16]byte{2}, PID: 1, Start: 100, PIDNS: 5}
		user.Dev, user.Ino = region.Inode()
		return user
	}
	otherInode := func(user *owner.User) { user.Ino++ }
	otherContainer := func(user *owner.User) { user.Ino++; user.PIDNS++ } // with a device node of its own
	otherBoot := func(user *owner.User) { user.Ino++; user.Boot[0]++ }
	otherMachine := func(user *owner.User) { user.Ino++; user.Boot[0]++; user.Machine[0]++ }
	neighbour := func(user *owner.User) { user.Ino++; user.PID, user.Start = 77, 200 } // another process, another inode
	for _, test := range []struct {
		name    string
		user    func(user *owner.User) // makes the record's user from ours
		process pmem.Process           // process 77 as the kernel shows it; Start 0: none
		beats   int                    // of the user, while it is watched
		dies    bool                   // process 77 ends while the heartbeat is watched
		use     owner.Use
		isCopy  bool
		memory  bool // isCopy is wanted only if the region is in tmpfs
		waits   bool
		why     string
	}{
		{name: "killed, and the same inode", user: func(user *owner.User) { user.PID = 77 }, use: owner.Unused, why: "lock"},
		{name: "killed, the same inode, in another container under another host name", user: func(user *owner.User) { user.PIDNS++; user.Machine[0]++ }, use: owner.Unused, why: "lock"},
		{name: "this process, a copy", user: otherInode, use: owner.Unused, isCopy: true},
		{name: "gone", user: neighbour, use: owner.Unused, isCopy: true, why: "process 77 of this machine is gone"},
		{name: "gone, its number is another's", user: neighbour, process: pmem.Process{Start: 201}, use: owner.Unused, isCopy: true},
		{name: "alive, and beats here", user: neighbour, process: pmem.Process{Start: 200}, beats: 1, use: owner.InUse, waits: true, why: "process 77 of this machine"},
		{name: "alive, and does not beat here", user: neighbour, process: pmem.Process{Start: 200}, use: owner.Unused, isCopy: true, waits: true, why: "this one is a copy"},
		{name: "stopped", user: neighbour, process: pmem.Process{Start: 200, Stopped: true}, use: owner.Unclear, isCopy: true, waits: true, why: "stopped"},
		{name: "dies while it is watched", user: neighbour, process: pmem.Process{Start: 200}, dies: true, use: owner.Unused, isCopy: true, waits: true, why: "gone"},
		{name: "another container, beats", user: otherContainer, beats: 1, use: owner.InUse, waits: true, why: "container"},
		{name: "another container, our own number, silent", user: otherContainer, use: owner.Unused, isCopy: true, waits: true, why: "silent"},
		{name: "another container, the number of a live process, silent", user: func(user *owner.User) { otherContainer(user); user.PID = 77 },
			process: pmem.Process{Start: 100}, use: owner.Unused, isCopy: true, waits: true},
		{name: "another boot, silent", user: otherBoot, use: owner.Unused, isCopy: true, waits: true, why: "earlier boot"},
		{name: "another boot, the same inode, silent", user: func(user *owner.User) { user.Boot[0]++; user.Dev++ }, use: owner.Unused, memory: true, waits: true, why: "earlier boot"},
		{name: "another machine, the same inode, silent", user: func(user *owner.User) { user.Boot[0]++; user.Machine[0]++ }, use: owner.Unclear, waits: true, why: "another machine"},
		{name: "another boot, beats", user: otherBoot, beats: 3, use: owner.InUse, waits: true},
		{name: "another machine, silent", user: otherMachine, use: owner.Unclear, isCopy: true, waits: true, why: "another machine (id 02"},
		{name: "another machine, beats", user: otherMachine, beats: 1, use: owner.InUse, waits: true, why: "another machine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			region := region(t)
			judging := us(region)
			user := judging
			test.user(&user)
			claim := take(t, region, user, time.Second)
			var slept time.Duration
			verdict, err := owner.Judge(region, super, owner.Options{
				Us: &judging,
				Process: func(pid int) (pmem.Process, error) {
					if pid != 77 || test.process.Start == 0 || test.dies && slept > 0 {
						return pmem.Process{}, os.ErrNotExist
					}
					return test.process, nil
				},
				Sleep: func(wait time.Duration) {
					if slept += wait; test.beats > 0 && slept > time.Second/2 {
						test.beats--
						if err := claim.Beat(); err != nil {
							t.Error(err)
						}
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			isCopy := test.isCopy || test.memory && region.Durability() == pmem.Volatile
			if verdict.Use != test.use || verdict.Copy != isCopy || !strings.Contains(verdict.Why, test.why) {
				t.Errorf("use %d, copy %v, %q; want %d, %v, %q", verdict.Use, verdict.Copy, verdict.Why, test.use, isCopy, test.why)
			}
			if want := test.waits; (slept > 0) != want || slept > 5*time.Second {
				t.Errorf("waited for %v", slept)
			}
			if silent := test.waits && test.beats == 0 && test.use != owner.InUse && !test.dies; silent && slept != 5*time.Second {
				t.Errorf("judged silent after %v", slept)
			}
			refused, taken := verdict.Refusal(false, "-o takeover"), verdict.Refusal(true, "")
			if (refused != nil) != (test.use >= owner.InUse) || (taken != nil) != (test.use == owner.InUse) {
				t.Errorf("refusals %v, with takeover %v", refused, taken)
			}
			if refused != nil && (!errors.Is(refused, owner.ErrInUse) || !strings.Contains(refused.Error(), test.why)) {
				t.Errorf("refusal %v", refused)
			}
		})
	}
}

// TestJudgeTorn checks verdicts on users that died while they wrote the record or the heartbeat.
func TestJudgeTorn(t *testing.T) {
	for _, c := range []struct {
		name  string
		off   int64
		start uint64 // of process 1 as the kernel shows it
		use   owner.Use
		waits bool
	}{
		{"owner record", super.OwnerOff, 100, owner.Unused, true},
		{"heartbeat, the process may live elsewhere", super.BeatOff(), 7, owner.Unused, true},
		{"heartbeat, the process is alive", super.BeatOff(), 100, owner.Unclear, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := region(t)
			u := owner.User{Machine: [8]byte{1}, Boot: [16]byte{2}, PID: 1, Start: 100, PIDNS: 5, Ino: 1}
			take(t, r, u, time.Second)
			if err := r.Store(c.off+32, []byte("8 bytes!")); err != nil {
				t.Fatal(err)
			}
			me := u
			me.PID = 2
			var slept time.Duration
			v, err := owner.Judge(r, super, owner.Options{
				Us:      &me,
				Process: func(pid int) (pmem.Process, error) { return pmem.Process{Start: c.start}, nil },
				Sleep:   func(d time.Duration) { slept += d },
			})
			if err != nil || v.Use != c.use || (slept > 0) != c.waits || slept > 5*time.Second {
				t.Errorf("verdict %+v after %v, error %v", v, slept, err)
			}
		})
	}
}

// TestJudgeClean checks that Judge does not wait for a clean record, and that a crafted interval
// does not make it wait long.
func TestJudgeClean(t *testing.T) {
	r := region(t)
	sleep := func(time.Duration) { t.Error("waited") }
	if v, err := owner.Judge(r, super, owner.Options{Sleep: sleep}); err != nil || v.Use != owner.Clean || v.Refusal(false, "") != nil {
		t.Errorf("verdict %+v, error %v", v, err)
	}
	c := take(t, r, owner.User{Boot: [16]byte{9}}, 0)
	if v, err := owner.Judge(r, super, owner.Options{Sleep: sleep}); err != nil || v.Use != owner.Unclear {
		t.Errorf("a user that never beats: verdict %+v, error %v", v, err)
	}
	if err := c.Release(9, false, layout.FreeMapRef{}); err != nil {
		t.Fatal(err)
	}
	put(t, r, layout.Owner{Boot: [16]byte{9}, State: layout.OwnerMounted}, layout.Beat{Interval: 1 << 31})
	var slept time.Duration
	if _, err := owner.Judge(r, super, owner.Options{Sleep: func(d time.Duration) { slept += d }}); err != nil || slept > time.Minute {
		t.Errorf("waited for %v, error %v", slept, err)
	}
}

// TestClaim checks what a claim writes, in which states, and that Release ends the heartbeat.
func TestClaim(t *testing.T) {
	r := region(t)
	v, err := owner.Judge(r, super, owner.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := owner.Take(r, super, v, owner.TakeOptions{Seq: 12, Interval: 2 * time.Millisecond, Clock: func() int64 { return 99 }})
	if err != nil {
		t.Fatal(err)
	}
	first := read(t, r)
	u := owner.Us(r)
	if o, b := first.Owner, first.Beat; !first.Mounted() || first.Seq != 12 || o.PID != uint32(os.Getpid()) || o.Mounts != 8 || o.Mount == [8]byte{} ||
		b.Mount != o.Mount || b.Time != 99 || b.Ino != u.Ino || b.Dev != u.Dev || b.Interval != 2 {
		t.Errorf("record %+v", first)
	}
	if _, err := owner.Take(r, super, v, owner.TakeOptions{}); !errors.Is(err, owner.ErrInUse) {
		t.Errorf("a claim by an outdated verdict: error %v, want ErrInUse", err)
	}
	c.Start(func(err error) { t.Error(err) })
	for deadline := time.Now().Add(10 * time.Second); read(t, r).Beat.Count < first.Beat.Count+3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the heartbeat does not beat")
		}
	}
	if err := c.Release(13, true, layout.FreeMapRef{Block: 5, Len: 6}); err != nil {
		t.Fatal(err)
	}
	last := read(t, r)
	if last.Mounted() || last.Owner.State != layout.OwnerSaved || last.Owner.Map.Block != 5 || last.Owner.Mounts != 8 || last.Seq != 13 || !last.Owner.Damaged {
		t.Errorf("released: %+v", last)
	}
	if err := c.Beat(); err != nil {
		t.Errorf("a beat that was due meanwhile: %v", err)
	}
	if read(t, r).Beat != last.Beat {
		t.Error("the heartbeat goes on")
	}
}

// TestClaimLost checks that a user that slept while another took the region changes nothing any
// more.
func TestClaimLost(t *testing.T) {
	for _, next := range []struct {
		name string
		do   func(t *testing.T, region *pmem.Region)
	}{
		{"mounted", func(t *testing.T, region *pmem.Region) { take(t, region, owner.User{PID: 5}, time.Second) }},
		{"mounted and unmounted", func(t *testing.T, region *pmem.Region) {
			if err := take(t, region, owner.User{PID: 5}, time.Second).Release(50, false, layout.FreeMapRef{}); err != nil {
				t.Fatal(err)
			}
		}},
		{"formatted", func(t *testing.T, region *pmem.Region) {
			if err := region.NTZero(0, 4096); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(next.name, func(t *testing.T) {
			region := region(t)
			claim := take(t, region, owner.User{PID: 4}, time.Millisecond)
			next.do(t, region)
			var before, after [2 * layout.LineSize]byte
			if err := region.Load(super.OwnerOff, before[:]); err != nil {
				t.Fatal(err)
			}
			var reported atomic.Int32
			claim.Start(func(err error) {
				if !errors.Is(err, owner.ErrLost) {
					t.Errorf("reported %v", err)
				}
				reported.Add(1)
			})
			if err := claim.Beat(); !errors.Is(err, owner.ErrLost) {
				t.Errorf("beat: %v", err)
			}
			for deadline := time.Now().Add(10 * time.Second); reported.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the loss was not reported")
				}
			}
			if err := claim.Release(60, false, layout.FreeMapRef{}); !errors.Is(err, owner.ErrLost) {
				t.Errorf("release: %v", err)
			}
			if err := region.Load(super.OwnerOff, after[:]); err != nil || after != before {
				t.Errorf("the record was changed after the loss, error %v", err)
			}
			if reported.Load() != 1 {
				t.Errorf("reported %d times", reported.Load())
			}
		})
	}
}
