package fusefs

import (
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// Extended attributes that query the daemon behind a mount point. Every file and directory has
// them, unlisted, since a bind mount may have any of them as its root.
const (
	// InfoXattr has an Info in JSON as its value.
	InfoXattr = "system.daxfsd.info"
	// ActivityXattr has an Activity in JSON as its value. It is cheap enough to read every second.
	ActivityXattr = "system.daxfsd.activity"
)

// Info describes a mount. Later versions may only add fields.
type Info struct {
	Version    string    `json:"version"` // of the daemon
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	Mountpoint string    `json:"mountpoint"`
	Options    []string  `json:"options"`
	// WhyNotUring is the reason for using /dev/fuse, if no option asked for that.
	WhyNotUring string `json:"why_not_uring,omitempty"`
	// Direct is which grants of files' own memory the mount makes: off, ro, rw.
	Direct string `json:"direct"`
	// WhyNotDirect is the reason for making no grants of files' own memory, if no option forbids
	// it.
	WhyNotDirect string `json:"why_not_direct,omitempty"`

	Region     string      `json:"region"`
	RegionID   pmem.FileID `json:"region_id"`
	Kind       string      `json:"kind"`
	RegionSize int64       `json:"region_size"` // bytes
	Align      int64       `json:"align"`       // bytes
	Durability string      `json:"durability"`
	Promise    string      `json:"promise"`
	Size       int64       `json:"size"` // bytes
	Label      string      `json:"label"`
	UUID       string      `json:"uuid"`
	Format     uint32      `json:"format"`
	Created    time.Time   `json:"created"`

	fs.Stats

	Operations   transport.Stats `json:"operations"`                 // without histograms, unless they were asked for
	BucketBounds []uint64        `json:"bucket_bounds_ns,omitempty"` // the histograms' bounds, if they were asked for; see transport.BucketBounds
	Runtime      Runtime         `json:"runtime"`
}

// Activity is what the daemon has done since it mounted. Later versions may only add fields.
type Activity struct {
	PID        int             `json:"pid"`
	Since      time.Time       `json:"since"`
	Region     string          `json:"region"`
	Mountpoint string          `json:"mountpoint"`
	Transport  string          `json:"transport"`
	Used       uint64          `json:"used_bytes"`
	Size       uint64          `json:"size_bytes"`
	Leased     uint64          `json:"leased_bytes"`      // fs.Stats.LeasedBytes
	LeasedFree uint64          `json:"leased_free_bytes"` // fs.Stats.LeasedDeferred
	Operations transport.Stats `json:"operations"`        // with histograms
	Runtime    Runtime         `json:"runtime"`
}

// Runtime describes the memory of the daemon's process.
type Runtime struct {
	Mallocs      uint64 `json:"mallocs"`         // objects allocated on the heap since the process began
	GCCycles     uint64 `json:"gc_cycles"`       // since the process began
	GCPauseMax   uint64 `json:"gc_pause_max_ns"` // longest pause since the process began, rounded up a little
	HeapBytes    uint64 `json:"heap_bytes"`      // occupied by objects
	LiveBytes    uint64 `json:"live_bytes"`      // in use at the last collection
	CachedInodes int    `json:"cached_inodes"`   // in DRAM
}
