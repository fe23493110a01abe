package owner_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestMapped checks that a region whose files programs of this boot may map is not used through
// another device node, unless the administrator takes it over.
func TestMapped(t *testing.T) {
	memory, err := pmem.NewMemory(size) // as a device, it is not a file that can be copied
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	was := owner.User{Machine: [8]byte{1}, Boot: [16]byte{2}, PID: 1, Start: 100, PIDNS: 5, Dev: 6, Ino: 40}
	for name, c := range map[string]struct {
		r       *pmem.Region
		mapped  bool
		mounted bool // the daemon is gone without unmounting
		change  func(u *owner.User)
		unclear bool
	}{
		"unmounted, the same node":          {memory, true, false, func(u *owner.User) {}, false},
		"unmounted, another node":           {memory, true, false, func(u *owner.User) { u.Ino = 41 }, true},
		"unmounted, a node of another /dev": {memory, true, false, func(u *owner.User) { u.Dev = 7 }, true},
		"killed, another node":              {memory, true, true, func(u *owner.User) { u.Ino = 41 }, true},
		"another node, nobody maps it":      {memory, false, false, func(u *owner.User) { u.Ino = 41 }, false},
		"another node after a reboot":       {memory, true, false, func(u *owner.User) { u.Ino, u.Boot = 41, [16]byte{3} }, false},
		"another file, which is a copy":     {region(t), true, false, func(u *owner.User) { u.Ino = 41 }, false},
	} {
		put(t, c.r, layout.Owner{Mounts: 7}, layout.Beat{})
		claim := take(t, c.r, was, 0)
		if err := claim.SetMapped(true); err != nil || !claim.Mapped() {
			t.Fatal(err)
		}
		if !c.mapped {
			if err := claim.SetMapped(false); err != nil || claim.Mapped() {
				t.Fatal(err)
			}
		}
		if !c.mounted {
			if err := claim.Release(9, false, layout.FreeMapRef{Block: 5}); err != nil {
				t.Fatal(err)
			}
		}
		now := was
		now.PID = 2
		c.change(&now)
		v, err := owner.Judge(c.r, super, owner.Options{Us: &now, Sleep: func(time.Duration) {},
			Process: func(int) (pmem.Process, error) { return pmem.Process{Start: 1}, nil }})
		if err != nil {
			t.Fatal(err)
		}
		refusal := v.Refusal(false, "-o takeover")
		if unclear := v.Use == owner.Unclear; unclear != c.unclear || errors.Is(refusal, owner.ErrInUse) != c.unclear || unclear && !strings.Contains(refusal.Error(), "another device node (inode 40 of device 0:6)") {
			t.Errorf("%s: %+v, %v", name, v, refusal)
		}
		if err := v.Refusal(true, "-o takeover"); err != nil {
			t.Errorf("%s: taken over: %v", name, err)
		}
	}
}
