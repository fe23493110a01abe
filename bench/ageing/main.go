// Command ageing ages a filesystem in process, without FUSE, and reports how much of it large pages
// can still map.
//
//	go run ./bench/ageing --util 75 --churn 20 --seed 1 --json
//
// It creates files, grows them by appends, overwrites, truncates, punches and deletes them, until
// the bytes allocated are --churn times the region's size. The sizes of files are log-uniform
// within classes (50 % of the files 1-64 KiB, 30 % to 2 MiB, 15 % to 64 MiB, 4 % to 1 GiB, 1 % to 3
// GiB). Only metadata is stored: appends are fallocate calls, so that the region may be sparse and
// larger than memory.
//
// Two runs with the same seed do the same.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// Result is the result of a run.
type Result struct {
	Util  int   `json:"util"`  // per cent of the blocks in use
	Churn int   `json:"churn"` // bytes allocated, as a multiple of Size
	Seed  int64 `json:"seed"`
	Size  int64 `json:"size"` // bytes of the region

	Writers int `json:"writers"` // files that grow at the same time

	FreeInAligned2M float64 `json:"free_in_aligned_2m"`     // share of the free data bytes
	PMDMappable     float64 `json:"pmd_mappable"`           // share of the bytes that 2 MiB pages could map at best
	PUDMappable     float64 `json:"pud_mappable"`           // share of the bytes that 1 GiB pages could map at best
	Faults          float64 `json:"faults_aged_over_fresh"` // page-table leaves, as a multiple of a fresh filesystem's
	Moved           float64 `json:"moved_over_written"`     // bytes moved by compaction, as a share of Written
	TableBytes      uint64  `json:"metadata_bytes_per_tib"` // bytes of the folio table per TiB, before any split
	Seconds         float64 `json:"seconds"`
	OpsPerSecond    float64 `json:"allocator_ops_per_second"` // operations that allocate or free

	Files   int   `json:"files"`
	Written int64 `json:"bytes_written"`
}

func main() {
	var res Result
	size := flag.Int64("size", 64<<30, "size of the region in bytes")
	flag.IntVar(&res.Util, "util", 75, "utilisation in per cent")
	flag.IntVar(&res.Churn, "churn", 20, "bytes to allocate, as a multiple of the region's size")
	flag.Int64Var(&res.Seed, "seed", 1, "seed of the random choices")
	flag.IntVar(&res.Writers, "writers", 4, "files that grow at the same time")
	seeds := flag.Int("seeds", 1, "how many runs to make, with this seed and the next ones; their medians are checked")
	check := flag.Bool("check", false, "fail if a figure misses its target in docs/ageing.md")
	asJSON := flag.Bool("json", false, "print JSON")
	dir := flag.String("dir", "", "directory for the sparse region (default: a temporary one)")
	flag.Parse()
	res.Size = *size
	all := make([]Result, max(1, *seeds))
	for i := range all {
		all[i] = res
		all[i].Seed += int64(i)
		if err := run(&all[i], *dir); err != nil {
			fmt.Fprintln(os.Stderr, "ageing:", err)
			os.Exit(1)
		}
		if *asJSON {
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			e.Encode(&all[i])
		} else {
			all[i].print()
		}
	}
	if bad := medians(all).missed(); *check && len(bad) > 0 {
		fmt.Fprintln(os.Stderr, "ageing: missed:", strings.Join(bad, "; "))
		os.Exit(1)
	}
}

// medians returns, for each figure that has a target, the median of several runs.
func medians(all []Result) *Result {
	m := all[0]
	for _, f := range []func(r *Result) *float64{
		func(r *Result) *float64 { return &r.FreeInAligned2M }, func(r *Result) *float64 { return &r.PMDMappable },
		func(r *Result) *float64 { return &r.PUDMappable }, func(r *Result) *float64 { return &r.Faults },
		func(r *Result) *float64 { return &r.Moved }, func(r *Result) *float64 { return &r.Seconds },
	} {
		var v []float64
		for i := range all {
			v = append(v, *f(&all[i]))
		}
		slices.Sort(v)
		*f(&m) = v[len(v)/2]
	}
	return &m
}

// target is the range that a figure must lie in.
type target struct {
	name     string
	v        float64
	min, max float64
}

// missed lists the figures that miss their targets. The targets for 1 GiB pages, and for the faults
// that depend on them, follow from what was measured at 90 %, see docs/ageing.md. A run has only
// about twenty ranges of 1 GiB, so the targets allow one in ten more or less.
func (r *Result) missed() (bad []string) {
	pud, faults := 0.70, 1.10
	if r.Util > 80 {
		pud, faults = 0.35, 1.25
	}
	for _, b := range []target{
		{"free in aligned 2 MiB", r.FreeInAligned2M, 0.95, 1},
		{"mappable by 2 MiB pages", r.PMDMappable, 0.99, 1},
		{"mappable by 1 GiB pages", r.PUDMappable, pud, 1},
		{"faults, aged over fresh", r.Faults, 0, faults},
		{"moved over written", r.Moved, 0, 0.10},
		{"seconds", r.Seconds, 0, 50},
	} {
		if b.v < b.min || b.v > b.max {
			bad = append(bad, fmt.Sprintf("%s is %.4f, not %.2f to %.2f", b.name, b.v, b.min, b.max))
		}
	}
	return bad
}

func (r *Result) print() {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	defer t.Flush()
	for _, row := range []struct {
		name string
		v    any
	}{
		{"utilisation", fmt.Sprintf("%d %%", r.Util)},
		{"seed", r.Seed},
		{"churn", fmt.Sprintf("%d times %.0f GiB", r.Churn, float64(r.Size)/(1<<30))},
		{"files at the end", fmt.Sprintf("%d, %d at a time", r.Files, r.Writers)},
		{"free in aligned 2 MiB", fmt.Sprintf("%.4f", r.FreeInAligned2M)},
		{"mappable by 2 MiB pages", fmt.Sprintf("%.4f", r.PMDMappable)},
		{"mappable by 1 GiB pages", fmt.Sprintf("%.4f", r.PUDMappable)},
		{"faults, aged over fresh", fmt.Sprintf("%.4f", r.Faults)},
		{"moved over written", fmt.Sprintf("%.4f", r.Moved)},
		{"folio table per TiB", fmt.Sprintf("%.1f MiB", float64(r.TableBytes)/(1<<20))},
		{"seconds", fmt.Sprintf("%.1f", r.Seconds)},
		{"operations per second", fmt.Sprintf("%.0f", r.OpsPerSecond)},
	} {
		fmt.Fprintf(t, "%s\t%v\t\n", row.name, row.v)
	}
}

// volume makes a filesystem on a sparse region of size bytes, in a file that is already unlinked.
func volume(dir string, size int64) (f *fs.FS, done func(), err error) {
	tmp, err := os.MkdirTemp(dir, "ageing")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(tmp)
	path := filepath.Join(tmp, "region")
	if err := pmem.Create(path, size, true); err != nil {
		return nil, nil, err
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		return nil, nil, err
	}
	if _, err = fs.Mkfs(r, fs.MkfsOptions{UUID: [16]byte{1}, Now: 1}); err == nil {
		f, err = fs.Mount(r, fs.Options{})
	}
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return f, func() { f.Unmount(); r.Close() }, nil
}

func run(res *Result, dir string) error {
	f, done, err := volume(dir, res.Size)
	if err != nil {
		return err
	}
	defer done()
	start := time.Now()
	a := newAger(f, res)
	if err := a.run(); err != nil {
		return err
	}
	res.Seconds = time.Since(start).Seconds()
	res.OpsPerSecond = float64(a.ops) / res.Seconds
	aged, err := a.measure()
	if err != nil {
		return err
	}
	fresh, err := a.fresh(dir)
	if err != nil {
		return err
	}
	res.Faults = float64(aged.leaves) / float64(max(fresh.leaves, 1))
	return nil
}
