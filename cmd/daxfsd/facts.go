package main

import (
	"encoding/json"
	"math"
	"os"
	"runtime/metrics"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// facts produces what a daemon reports about itself through extended attributes.
type facts struct {
	plan   *mountPlan
	region *pmem.Region
	super  *layout.Superblock
	since  time.Time
	// whyNotUring is the value of fusefs.Info.WhyNotUring.
	whyNotUring string
	// whyNotDirect is the value of fusefs.Info.WhyNotDirect.
	whyNotDirect string
	core         *fs.FS // core and server are set before any request can arrive
	server       *fusefs.Server
}

// info returns the value of fusefs.InfoXattr.
func (f *facts) info() []byte {
	d := describe(f.plan.region, f.region, f.super)
	stats := f.core.Stats()
	stats.PageSize = f.core.PageSize()
	ops := transport.Stats{}
	for name, o := range f.server.Stats() {
		o.Latency = nil
		ops[name] = o
	}
	id, _ := f.region.FileID()
	b, _ := json.Marshal(fusefs.Info{
		Version: versionString(), PID: os.Getpid(), Since: f.since, Mountpoint: f.plan.mountpoint, Options: f.plan.opts.list(), WhyNotUring: f.whyNotUring, Direct: f.plan.opts.grants().String(), WhyNotDirect: f.whyNotDirect,
		Region: d.Region, RegionID: id, Kind: d.Kind, RegionSize: d.RegionSize, Align: d.Align, Durability: d.Durability, Promise: d.Promise,
		Size: d.Size, Label: d.Label, UUID: d.UUID, Format: d.Format, Created: d.Created,
		Stats: stats, Operations: ops, Runtime: runtimeFacts(stats.CachedInodes),
	})
	return b
}

// activity returns the value of fusefs.ActivityXattr.
func (f *facts) activity() []byte {
	var s fs.StatFS
	f.core.StatFS(&s)
	leased, free := f.core.Direct().Leased()
	b, _ := json.Marshal(fusefs.Activity{
		PID: os.Getpid(), Since: f.since, Region: f.plan.region, Mountpoint: f.plan.mountpoint, Transport: f.plan.opts.via.String(),
		Used: (s.Blocks - s.Bfree) * layout.BlockSize, Size: s.Blocks * layout.BlockSize,
		Leased: leased, LeasedFree: free, Operations: f.server.Stats(), Runtime: runtimeFacts(f.core.CachedInodes()),
	})
	return b
}

// runtimeFacts returns the figures of Go's runtime, and the given number of cached inodes.
func runtimeFacts(cachedInodes int) fusefs.Runtime {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/pauses/total/gc:seconds"},
		{Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)
	return fusefs.Runtime{
		Mallocs: s[0].Value.Uint64(), GCCycles: s[1].Value.Uint64(), HeapBytes: s[2].Value.Uint64(), LiveBytes: s[4].Value.Uint64(),
		GCPauseMax: longest(s[3].Value.Float64Histogram()), CachedInodes: cachedInodes,
	}
}

// longest returns, in ns, the upper bound of the last bucket that is not empty, of a histogram in
// seconds.
func longest(h *metrics.Float64Histogram) uint64 {
	for i := len(h.Counts) - 1; i >= 0; i-- {
		if h.Counts[i] > 0 {
			bound := h.Buckets[i+1]
			if math.IsInf(bound, 1) {
				bound = h.Buckets[i]
			}
			return uint64(math.Ceil(bound * 1e9))
		}
	}
	return 0
}
