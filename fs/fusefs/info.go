package fusefs

import (
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// Extended attributes by which a program asks the daemon behind a mount point.
// Every file and directory has them, unlisted: a bind mount may show any as its root.
const (
	// InfoXattr has an Info as JSON for its value.
	InfoXattr = "system.daxfsd.info"
	// ActivityXattr has an Activity as JSON for its value. It is cheap to ask for every second.
	ActivityXattr = "system.daxfsd.activity"
)

// Info is what the daemon tells about a mount. Fields are only ever added.
type Info struct {
	Version    string    `json:"version"` // of the daemon
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	Mountpoint string    `json:"mountpoint"`
	Options    []string  `json:"options"`
	// WhyNotUring says why requests come by /dev/fuse, if nobody asked for that.
	WhyNotUring string `json:"why_not_uring,omitempty"`

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

	Operations   transport.Stats `json:"operations"`                 // without the histograms, if one did not ask for them
	BucketBounds []uint64        `json:"bucket_bounds_ns,omitempty"` // theirs, if one did; see transport.BucketBounds
	Runtime      Runtime         `json:"runtime"`
}

// Activity is what the daemon has done since it mounted. Fields are only ever added.
type Activity struct {
	PID        int             `json:"pid"`
	Since      time.Time       `json:"since"`
	Region     string          `json:"region"`
	Mountpoint string          `json:"mountpoint"`
	Transport  string          `json:"transport"`
	Used       uint64          `json:"used_bytes"`
	Size       uint64          `json:"size_bytes"`
	Operations transport.Stats `json:"operations"` // with the histograms
	Runtime    Runtime         `json:"runtime"`
}

// Runtime is what the daemon's memory does.
type Runtime struct {
	Mallocs      uint64 `json:"mallocs"`         // objects allocated on the heap since the process began
	GCCycles     uint64 `json:"gc_cycles"`       // since the process began
	GCPauseMax   uint64 `json:"gc_pause_max_ns"` // longest pause since the process began, rounded up a little
	HeapBytes    uint64 `json:"heap_bytes"`      // occupied by objects
	LiveBytes    uint64 `json:"live_bytes"`      // of them, what the last collection found in use
	CachedInodes int    `json:"cached_inodes"`   // in DRAM
}
