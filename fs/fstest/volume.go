package fstest

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// Small are the options of a filesystem whose second and third orders are 32 KiB and 256 KiB, so
// that they fit the smallest region.
var Small = fs.MkfsOptions{ChunkShift: 15, PUDShift: 18, Now: 1, UUID: [16]byte{1}}

// Volume is a filesystem on a region, and the test that uses it. The end of the test unmounts it.
type Volume struct {
	testing.TB
	R   *pmem.Region
	FS  *fs.FS // nil: not mounted
	Ctx fs.Caller
	Now atomic.Int64 // the time in ns, which each reading of the clock increments

	// Options are those of each mount. Without a Clock the time is Now.
	Options fs.Options
	// Unmerged means that adjacent folios may be split that a scan makes a large one.
	Unmerged bool
}

// RealTime is the clock of a real mount, for Options.Clock.
func RealTime() int64 { return time.Now().UnixNano() }

// Memory returns a region of size bytes in memory.
func Memory(t testing.TB, size int64) *pmem.Region {
	t.Helper()
	r, err := pmem.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// New returns a mounted filesystem of size bytes in memory, with the orders of Small.
func New(t testing.TB, size int64) *Volume {
	t.Helper()
	return Format(t, Memory(t, size), Small, fs.Options{})
}

// Format makes a filesystem on r and mounts it.
func Format(t testing.TB, r *pmem.Region, mkfs fs.MkfsOptions, mount fs.Options) *Volume {
	t.Helper()
	if _, err := fs.Mkfs(r, mkfs); err != nil {
		t.Fatal(err)
	}
	v := On(t, r, mount)
	v.Mount()
	return v
}

// On returns a Volume for the filesystem on r, not mounted.
func On(t testing.TB, r *pmem.Region, o fs.Options) *Volume {
	v := &Volume{TB: t, R: r, Options: o}
	t.Cleanup(func() {
		if v.FS != nil {
			v.FS.Unmount()
		}
	})
	return v
}

// Mount mounts with v.Options.
func (v *Volume) Mount() {
	v.Helper()
	v.MountWith(v.Options)
}

// MountWith mounts with o, but with Atomic and Clock of v.Options. The test fails if a saved free
// map cannot be used.
func (v *Volume) MountWith(o fs.Options) {
	v.Helper()
	o.Atomic, o.Clock = v.Options.Atomic, v.Options.Clock
	if o.Clock == nil {
		o.Clock = func() int64 { return v.Now.Add(1) }
	}
	warn := o.Warn
	o.Warn = func(msg string) {
		if warn != nil {
			warn(msg)
		}
		if strings.Contains(msg, "free map is not") {
			v.Error(msg)
		}
	}
	f, err := fs.Mount(v.R, o)
	if err != nil {
		v.Fatal(err)
	}
	v.FS = f
}

// Unmount unmounts cleanly.
func (v *Volume) Unmount() {
	v.Helper()
	if err := v.FS.Unmount(); err != nil {
		v.Fatal(err)
	}
	v.FS = nil
}

// Crash ends the mount like the daemon's death.
func (v *Volume) Crash() {
	v.FS.Abandon()
	v.FS = nil
}

// Remount unmounts and mounts by the saved free map. The state must be that before the unmount and
// that of a scan; fsck must find nothing.
func (v *Volume) Remount() {
	v.Helper()
	rep, before, scanned, now := v.Cycle()
	if rep.Left > 0 {
		v.Fatalf("fsck: %+v", rep)
	}
	before.Split2M = now.Split2M                      // which counts tables kept for reuse
	if before.Inodes == now.Inodes && before != now { // else orphans were freed
		v.Errorf("by the free map:\n%+v, before the unmount:\n%+v", now, before)
	}
	if v.Unmerged { // which only a scan sees
		for _, s := range []*fs.Stats{&now, &scanned} {
			s.Folios4K, s.Folios2M, s.Folios1G, s.Split2M, s.PartlyOwned, s.PMDMappable, s.PUDMappable = 0, 0, 0, 0, 0, 0, 0
		}
	}
	if now != scanned {
		v.Errorf("by the free map:\n%+v, by a scan:\n%+v", now, scanned)
	}
}

// Cycle unmounts, has fsck check the region, and mounts it twice: read-only by a scan, then by the
// saved free map. It returns fsck's report and Space before the unmount and in the two mounts.
func (v *Volume) Cycle() (rep *fsck.Report, before, scanned, now fs.Stats) {
	v.Helper()
	before = v.Space()
	v.Unmount()
	rep, err := fsck.Check(v.R, fsck.Options{})
	if err != nil || !rep.FreeMap {
		v.Fatalf("fsck: %v, %+v", err, rep)
	}
	v.MountWith(fs.Options{ReadOnly: true, Scan: true})
	if v.FS.Stats().FreeMap {
		v.Fatal("a scan that was asked for did not happen")
	}
	scanned = v.Space()
	v.Unmount()
	v.Mount()
	if !v.FS.Stats().FreeMap {
		v.Fatal("the free map was not used")
	}
	return rep, before, scanned, v.Space()
}

// Check has fsck check the unmounted filesystem. It must find nothing.
func (v *Volume) Check() {
	v.Helper()
	if rep, err := fsck.Check(v.R, fsck.Options{}); err != nil || len(rep.Problems) > 0 {
		v.Fatalf("fsck: %v, %+v", err, rep)
	}
}

// Space returns the statistics that must not change with an unmount and a mount.
func (v *Volume) Space() fs.Stats {
	s := v.FS.Stats()
	s.CachedInodes, s.SplitTableBytes, s.MovedBytes, s.LeasedBytes, s.LeasedDeferred = 0, 0, 0, 0, 0
	s.ReplayedRecords, s.FreedOrphans, s.ReadOnly, s.FreeMap = 0, 0, false, false
	if v.Options.Atomic { // each mount takes some free space for itself
		s.FreeBlocks, s.AvailableBlocks, s.FreeInodes, s.FreeData, s.FreeIn2M, s.FreeIn1G, s.AtomicWrite = 0, 0, 0, 0, 0, 0, 0
	}
	return s
}

// Free returns the number of free blocks.
func (v *Volume) Free() uint64 {
	var s fs.StatFS
	v.FS.StatFS(&s)
	return s.Bfree
}

// Super returns the superblock on the media.
func (v *Volume) Super() *layout.Superblock {
	v.Helper()
	sb, _, err := fs.ReadSuper(v.R)
	if err != nil {
		v.Fatal(err)
	}
	return sb
}

// Store stores b at a byte offset of the region.
func (v *Volume) Store(off int64, b []byte) {
	v.Helper()
	if err := v.R.Store(off, b); err != nil {
		v.Fatal(err)
	}
}

// OK fails the test if e is an error.
func (v *Volume) OK(e syscall.Errno) {
	v.Helper()
	if e != 0 {
		v.Fatalf("unexpected error %v", e)
	}
}
