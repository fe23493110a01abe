package main

import (
	"fmt"
	"strings"
)

// Verdicts on a target.
const (
	met      = "met"
	missed   = "missed"
	unjudged = "not measured"
)

// target is a figure that the project demands of daxfsd: a median of this run, or the ratio of two.
type target struct {
	Name    string  `json:"name"`
	Min     float64 `json:"min,omitempty"` // only one of Min and Max is set
	Max     float64 `json:"max,omitempty"`
	Value   float64 `json:"value"`
	Verdict string  `json:"verdict"`

	of, by figure // the value is of/by; if by has no row, it is of
	atMost bool   // true: Value must be at most Max; false: at least Min
}

// figure names a median: the row, the contender, and the metric.
type figure struct{ row, contender, metric string }

// atLeast and atMost make a target for the figure of, or for the ratio of/by if by has a row.
func atLeast(v float64, name string, of, by figure) *target {
	return &target{Name: name, Min: v, of: of, by: by}
}
func atMost(v float64, name string, of, by figure) *target {
	return &target{Name: name, Max: v, atMost: true, of: of, by: by}
}

// maxAnonymous limits the memory of a daemon under the load of load/fairness, in MiB: the payload
// of two CPUs' rings (32), the buffers of the slow requests, and Go's heap.
const maxAnonymous = 256

// targets returns all targets. All are for dax=always, and for regions in tmpfs.
func targets() (all []*target) {
	for _, transport := range []string{"uring", "dev"} {
		daxfsd, null := "daxfsd-"+transport, "null-"+transport
		times := map[string]float64{"uring": 3, "dev": 1.7}[transport]
		for _, pattern := range []string{"randread", "randwrite"} {
			two, one := pattern+"/psync/2", pattern+"/psync/1"
			all = append(all,
				atLeast(times, fmt.Sprintf("%s, 2 jobs, %s / loopback", pattern, daxfsd), figure{two, daxfsd, "ops/s"}, figure{two, "loopback", "ops/s"}),
				atLeast(0.90, fmt.Sprintf("%s, 2 jobs, %s / %s", pattern, daxfsd, null), figure{two, daxfsd, "ops/s"}, figure{two, null, "ops/s"}))
			if transport == "uring" {
				all = append(all,
					atMost(1.1, fmt.Sprintf("%s, 1 job, p50 of %s / p50 of %s", pattern, daxfsd, null), figure{one, daxfsd, "p50_us"}, figure{one, null, "p50_us"}),
					atMost(4, fmt.Sprintf("%s, 1 job, p99 of %s / p50 of %s", pattern, daxfsd, null), figure{one, daxfsd, "p99_us"}, figure{one, null, "p50_us"}))
			}
		}
		all = append(all,
			atLeast(1.0, fmt.Sprintf("1 MiB sequential read, %s / tmpfs", daxfsd), figure{"seqread/psync/1", daxfsd, "MiB/s"}, figure{"seqread/psync/1", "tmpfs", "MiB/s"}),
			atLeast(0.9, fmt.Sprintf("1 MiB sequential write, %s / tmpfs", daxfsd), figure{"seqwrite/psync/1", daxfsd, "MiB/s"}, figure{"seqwrite/psync/1", "tmpfs", "MiB/s"}))
		for _, pattern := range []string{"randread", "randwrite"} {
			row := pattern + "/psync/2"
			all = append(all,
				atMost(0.001, fmt.Sprintf("allocations for each request, %s, %s", pattern, daxfsd), figure{row, daxfsd, "allocs_per_op"}, figure{}),
				atMost(0, fmt.Sprintf("garbage collections meanwhile, %s, %s", pattern, daxfsd), figure{row, daxfsd, "gc_cycles"}, figure{}))
		}
		all = append(all,
			atMost(200, fmt.Sprintf("longest pause with 1 000 000 cached inodes, µs, %s", daxfsd), figure{"inodes/pause", daxfsd, "us"}, figure{}),
			atMost(300, fmt.Sprintf("DRAM of a cached inode, bytes, %s", daxfsd), figure{"inodes/live", daxfsd, "B"}, figure{}),
			atMost(0.01, fmt.Sprintf("inodes kept of those the kernel forgot, %s", daxfsd), figure{"inodes/left", daxfsd, "share"}, figure{}))
		for _, op := range []struct {
			row     string
			min     float64
			against string
		}{
			{"create", 3, "loopback"}, {"rename", 3, "loopback"}, {"unlink", 3, "loopback"},
			{"stat-created", 0.7, "tmpfs"}, {"stat-listed", 0.7, "tmpfs"},
			{"stat-cold", 2, "loopback"}, {"readdir", 1.5, "loopback"},
		} {
			row := "meta/" + op.row
			all = append(all, atLeast(op.min, fmt.Sprintf("%s, %s / %s", op.row, daxfsd, op.against), figure{row, daxfsd, "ops/s"}, figure{row, op.against, "ops/s"}))
		}
		all = append(all,
			atLeast(0.9, fmt.Sprintf("random read, 100 000 extents / one, %s", daxfsd), figure{"extents/many", daxfsd, "ops/s"}, figure{"extents/one", daxfsd, "ops/s"}),
			atLeast(1/1.2, fmt.Sprintf("create in a directory of 1 000 000 / an empty one, %s", daxfsd), figure{"bigdir/million", daxfsd, "ops/s"}, figure{"bigdir/empty", daxfsd, "ops/s"}),
			atLeast(0.25, fmt.Sprintf("64 clients, 1000 files, slowest / mean, %s", daxfsd), figure{"load/fairness", daxfsd, "ratio"}, figure{}),
			atMost(maxAnonymous, fmt.Sprintf("the daemon's memory then, MiB, %s", daxfsd), figure{"load/fairness", daxfsd, "anon_MiB"}, figure{}))
	}
	for _, op := range []struct{ row, name, call, limit string }{
		{"direct/randread", "random read of 4 KiB", "pread", "plain copy"},
		{"direct/randwrite", "random write of 4 KiB", "pwrite", "NT store and fence"},
	} {
		client, memory, tmpfs := figure{op.row, byClient, "ns"}, figure{op.row, byMemory, "ns"}, figure{op.row, "tmpfs", "ns"}
		all = append(all,
			atMost(1.3, fmt.Sprintf("%s, time of direct / %s", op.name, op.limit), client, memory),
			atLeast(2, fmt.Sprintf("%s, time of tmpfs %s / direct", op.name, op.call), tmpfs, client),
			atMost(0, fmt.Sprintf("%s, allocations by direct for each", op.name), figure{op.row, byClient, "allocs_per_op"}, figure{}))
	}
	return append(all,
		atMost(200, "mapping 1 GiB to write that is written, unshared and aligned, µs", figure{"direct/map", byClient, "us"}, figure{}),
		atMost(20_000, "mapping a file of 1000 extents to write, µs", figure{"direct/map-extents", byClient, "us"}, figure{}),
		atMost(200, "mapping beside 2000 leases, µs", figure{"direct/map-leases", byClient, "us"}, figure{}))
}

// hasTarget reports whether a target needs a row.
func hasTarget(row string) bool {
	for _, b := range targets() {
		if b.of.row == row || b.by.row == row {
			return true
		}
	}
	return false
}

// judge evaluates all targets.
func judge(r *Report) []*target {
	all := targets()
	for _, b := range all {
		b.judge(r)
	}
	return all
}

func (b *target) judge(r *Report) {
	b.Verdict = unjudged
	v, ok := r.median(b.of.row, b.of.contender, b.of.metric)
	if !ok {
		return
	}
	if b.by.row != "" {
		w, ok := r.median(b.by.row, b.by.contender, b.by.metric)
		if !ok || w == 0 {
			return
		}
		v /= w
	}
	b.Value, b.Verdict = v, missed
	if b.atMost && v <= b.Max || !b.atMost && v >= b.Min {
		b.Verdict = met
	}
}

// Demand formats the demanded value.
func (b *target) Demand() string {
	if b.atMost {
		return "≤ " + strings.TrimSuffix(fmt.Sprintf("%.5g", b.Max), ".0")
	}
	return fmt.Sprintf("≥ %.3g", b.Min)
}

// Shown formats the measured value.
func (b *target) Shown() string {
	if b.Verdict == unjudged {
		return "n/a"
	}
	if b.of.metric == "allocs_per_op" {
		return fmt.Sprintf("%.5f", b.Value)
	}
	return fmt.Sprintf("%.2f", b.Value)
}
