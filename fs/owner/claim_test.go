package owner_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestClaimLostAfterFailure checks that a claim that is lost is reported even after a beat that
// failed for another reason.
func TestClaimLostAfterFailure(t *testing.T) {
	r := region(t)
	c := take(t, r, owner.User{PID: 4}, time.Millisecond)
	reported := make(chan error, 100)
	c.Start(func(err error) { reported <- err })
	defer c.Stop()
	next := func(what string) error {
		t.Helper()
		select {
		case err := <-reported:
			return err
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not reported", what)
			return nil
		}
	}
	if err := os.Truncate(r.Path(), 0); err != nil {
		t.Fatal(err)
	}
	if err := next("the lost memory"); !errors.Is(err, pmem.ErrMedia) {
		t.Fatalf("reported %v, want ErrMedia", err)
	}
	if err := os.Truncate(r.Path(), size); err != nil {
		t.Fatal(err)
	}
	put(t, r, layout.Owner{Mount: [8]byte{5}, State: layout.OwnerMounted}, layout.Beat{Mount: [8]byte{5}})
	if err := next("the new owner"); !errors.Is(err, owner.ErrLost) {
		t.Errorf("reported %v, want ErrLost", err)
	}
}

// TestTakeBeatsAgain checks that Take refuses the region of a user that was silent when it was
// judged, as a stopped daemon is, but whose heartbeat has advanced since. It does so whatever the
// verdict was.
func TestTakeBeatsAgain(t *testing.T) {
	us := owner.User{Machine: [8]byte{1}, Boot: [16]byte{2}, PID: 1, Start: 100, PIDNS: 5}
	for _, torn := range []string{"", "heartbeat", "owner record"} {
		t.Run("torn: "+torn, func(t *testing.T) {
			region := region(t)
			other := us
			other.PIDNS++
			claim := take(t, region, other, time.Second)
			switch torn {
			case "heartbeat":
				put(t, region, read(t, region).Owner, layout.Beat{})
			case "owner record":
				if err := region.Store(super.OwnerOff+32, []byte("8 bytes!")); err != nil {
					t.Fatal(err)
				}
			}
			judge := func() *owner.Verdict {
				verdict, err := owner.Judge(region, super, owner.Options{Us: &us, Sleep: func(time.Duration) {}})
				if err != nil || verdict.Use != owner.Unused {
					t.Fatalf("verdict %+v, error %v", verdict, err)
				}
				return verdict
			}
			verdict := judge()
			if torn == "owner record" { // its user would find the claim lost, and not beat
				beat := verdict.Record.Beat
				beat.Count++
				var line layout.Line
				beat.Put(&line)
				line.Seal(layout.Seed(super.UUID), super.BeatOff(), beat.Count)
				if err := region.Store(super.BeatOff(), line[:]); err != nil {
					t.Fatal(err)
				}
			} else if err := claim.Beat(); err != nil {
				t.Fatal(err)
			}
			before := read(t, region)
			if _, err := owner.Take(region, super, verdict, owner.TakeOptions{Us: &us, Seq: 100}); !errors.Is(err, owner.ErrInUse) {
				t.Errorf("taken from a user that beats: error %v, want ErrInUse", err)
			}
			if read(t, region) != before {
				t.Error("the record was changed")
			}
			if _, err := owner.Take(region, super, judge(), owner.TakeOptions{Us: &us, Seq: 100}); err != nil {
				t.Errorf("judged silent again: %v", err)
			}
		})
	}
}
