package fsck

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestRepairLost checks that a repair stores nothing after another process has taken the region,
// even if a beat has failed for another reason before.
func TestRepairLost(t *testing.T) {
	path := t.TempDir() + "/region"
	if err := pmem.Create(path, 1<<20, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m := &media{image: image{r: r}, sb: &layout.Superblock{UUID: [16]byte{1}, OwnerOff: 2048}, verdict: &owner.Verdict{}, beat: time.Millisecond}
	if err := m.begin(); err != nil {
		t.Fatal(err)
	}
	defer m.claim.Stop()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // some beats fall on lost memory
	if err := m.begin(); err != nil {
		t.Errorf("beats that failed: %v", err)
	}
	var l layout.Line
	o := layout.Owner{Mount: [8]byte{5}, State: layout.OwnerMounted}
	o.Put(&l)
	l.Seal(layout.Seed(m.sb.UUID), m.sb.OwnerOff, 9)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(1<<20), r.Store(m.sb.OwnerOff, l[:])); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if err := m.begin(); errors.Is(err, owner.ErrLost) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the repair goes on, on a region that is another's")
		}
	}
}
