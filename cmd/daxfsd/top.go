package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/transport"
)

type topFlags struct {
	interval   time.Duration
	count      int
	once, json bool
}

// topInterval is the shortest interval that --interval accepts.
const topInterval = 50 * time.Millisecond

func topCommand() *cobra.Command {
	var f topFlags
	c := &cobra.Command{
		Use:   "top [flags] MOUNTPOINT",
		Short: "Watch what a mount is doing, live",
		Long: `Show what the daemon of a mounted daxfsd is doing, updated each second. For each
kind of request (by the kernel's name): requests per second, data moved, how long
the daemon took from reading the request to writing the answer, how many
failed, and how many are not answered yet. The lines above the table
show how full the filesystem is and the state of the daemon's memory. If programs map
files' own memory, a second table shows their grants, as ` + "`daxfsd leases`" + ` does.

p50 is the time within which half of the requests of the last interval were answered,
p99 the time for 99 of 100. They come from histograms and are accurate to 25 %.
A request that the kernel answers from its caches never reaches the daemon. One
GETXATTR in each interval comes from top itself.

On a terminal, q quits and s sorts by another column. Without a terminal, top prints
one interval as text and exits, like --once; --count prints that many intervals.
--json prints one JSON object per line and interval, until --count or the end of the
mount.`,
		Example: `  daxfsd top /mnt
  daxfsd top --once --interval 10s /mnt
  daxfsd top --json --count 60 /mnt > minute.json`,
		Args: args("MOUNTPOINT"),
		RunE: func(c *cobra.Command, a []string) error { return top(c.OutOrStdout(), &f, a[0]) },
	}
	c.Flags().DurationVar(&f.interval, "interval", time.Second, "length of an interval")
	c.Flags().IntVar(&f.count, "count", 0, "print that many intervals and exit")
	c.Flags().BoolVar(&f.once, "once", false, "print one interval as text and exit")
	c.Flags().BoolVar(&f.json, "json", false, "print each interval as one line of JSON")
	return c
}

func top(out io.Writer, f *topFlags, arg string) error {
	switch {
	case f.interval < topInterval:
		return usagef("--interval %v is too short; the minimum is %v", f.interval, topInterval)
	case f.count < 0:
		return usagef("--count %d: expected a number of intervals", f.count)
	case f.once && (f.json || f.count > 1):
		return usagef("--once prints one interval as text; it excludes --json and --count")
	}
	w, err := watch(arg)
	if err != nil {
		return err
	}
	if !f.json && !f.once && f.count == 0 && isTerminal(os.Stdout) && isTerminal(os.Stdin) {
		return topLive(w, f.interval)
	}
	if !f.json && f.count == 0 {
		f.count = 1
	}
	for n := 1; ; n++ {
		time.Sleep(f.interval)
		i, err := w.next()
		if err != nil {
			return err
		}
		if f.json {
			err = json.NewEncoder(out).Encode(i)
		} else {
			_, err = fmt.Fprintf(out, "%s\n%s\n%s", strings.Join(i.head(), "\n"), topHeader, i.table(byRate, -1))
			if err == nil && len(i.Grants) > 0 {
				fmt.Fprintln(out)
				someGrants(out, i.Grants, i.Mountpoint)
			}
		}
		if err != nil || n == f.count {
			return err
		}
	}
}

// watcher asks a daemon repeatedly what it has done.
type watcher struct {
	mountpoint string
	last       *fusefs.Activity
	at         time.Time // time of the last question
}

// watch begins to watch the daxfsd at a mount point.
func watch(arg string) (*watcher, error) {
	f, err := find(arg)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err != nil || f.daxfsd() == nil {
		if ms := regionMounts(arg); len(ms) == 1 {
			return nil, fmt.Errorf("%s is a region; its mount point is %s", arg, ms[0].Mountpoint)
		}
		return nil, fmt.Errorf("no daxfsd is mounted on %s; see `findmnt -t %s`", arg, fsType)
	}
	mp := f.path
	w := &watcher{mountpoint: mp, at: time.Now()}
	w.last, err = askActivity(mp)
	return w, err
}

// next returns what the daemon did since the previous question.
func (w *watcher) next() (*interval, error) {
	at := time.Now()
	now, err := askActivity(w.mountpoint)
	if err != nil {
		if m, merr := mountAt(w.mountpoint); merr == nil && (m == nil || m.FSType != fsType) {
			err = fmt.Errorf("the daxfsd on %s was unmounted", w.mountpoint)
		}
		return nil, err
	}
	was := w.last
	if was.PID != now.PID || !was.Since.Equal(now.Since) { // mounted again meanwhile
		was, w.at = &fusefs.Activity{}, now.Since
	}
	i := newInterval(was, now, at.Sub(w.at))
	i.Time = at
	if i.Leased > 0 {
		if i.Grants, err = askGrants(w.mountpoint); err != nil {
			return nil, err
		}
	}
	w.last, w.at = now, at
	return i, nil
}

// interval is what a daemon did in a period; scripts rely on its fields. Total is the sum of
// Operations.
type interval struct {
	Time       time.Time                    `json:"time"` // end of the interval
	Seconds    float64                      `json:"seconds"`
	Region     string                       `json:"region"`
	Mountpoint string                       `json:"mountpoint"`
	Transport  string                       `json:"transport"`
	Used       uint64                       `json:"used_bytes"`
	Size       uint64                       `json:"size_bytes"`
	Operations map[string]operationInterval `json:"operations"`
	Total      operationInterval            `json:"total"`
	NewMallocs uint64                       `json:"new_mallocs"` // in the interval
	NewGC      uint64                       `json:"new_gc_cycles"`
	Runtime    fusefs.Runtime               `json:"runtime"` // since the daemon began
	Leased     uint64                       `json:"leased_bytes"`
	LeasedFree uint64                       `json:"leased_free_bytes"` // of these, bytes that no file has
	Grants     []fusefs.Grant               `json:"grants"`            // what programs may map, at the end of the interval

	up time.Duration
}

// operationInterval is what was done for one operation in an interval. The embedded counters count
// only that interval.
type operationInterval struct {
	transport.Operation
	Rate     float64 `json:"per_second"`
	DataRate float64 `json:"bytes_per_second"`
}

func newInterval(was, now *fusefs.Activity, took time.Duration) *interval {
	i := &interval{
		Seconds: took.Seconds(), Region: now.Region, Mountpoint: now.Mountpoint, Transport: now.Transport, Used: now.Used, Size: now.Size,
		Operations: map[string]operationInterval{}, Runtime: now.Runtime, up: time.Since(now.Since),
		Leased: now.Leased, LeasedFree: now.LeasedFree, Grants: []fusefs.Grant{},
		NewMallocs: now.Runtime.Mallocs - was.Runtime.Mallocs, NewGC: now.Runtime.GCCycles - was.Runtime.GCCycles,
	}
	per := func(o transport.Operation) operationInterval {
		o.Latency = nil
		return operationInterval{o, float64(o.Count) / i.Seconds, float64(o.Bytes) / i.Seconds}
	}
	ops := now.Operations.Since(was.Operations)
	for name, o := range ops {
		i.Operations[name] = per(o)
	}
	i.Total = per(ops.Total())
	return i
}

// head returns the lines above the table.
func (i *interval) head() []string {
	lines := []string{
		fmt.Sprintf("daxfsd on %s: %s, by %s, up %v", quoted(i.Mountpoint), quoted(i.Region), via(i.Transport), i.up.Round(time.Second)),
		fmt.Sprintf("space   %s of %s used (%.1f %%)", formatSize(int64(i.Used)), formatSize(int64(i.Size)), 100*float64(i.Used)/float64(max(i.Size, 1))),
		fmt.Sprintf("memory  %s of heap, %d inodes cached, %.0f allocations/s, %d collections (%d now), longest pause %s",
			formatSize(int64(i.Runtime.HeapBytes)), i.Runtime.CachedInodes, float64(i.NewMallocs)/i.Seconds, i.Runtime.GCCycles, i.NewGC, formatTime(i.Runtime.GCPauseMax)),
	}
	if i.Leased > 0 {
		lines = append(lines, "grants  "+strings.Join(slices.DeleteFunc([]string{grantsText(i.Grants), leasedText(i.Leased, i.LeasedFree) + " leased"}, func(s string) bool { return s == "" }), "; "))
	}
	return append(lines, "")
}

// via names a transport for people.
func via(t string) string {
	if t == fusefs.TransportUring.String() {
		return "io_uring"
	}
	return "/dev/fuse"
}

// topOrder is a column to sort by.
type topOrder int

const (
	byRate topOrder = iota
	byP99
	byName
	topOrders
)

func (o topOrder) String() string { return [...]string{"rate", "p99", "name"}[o] }

const topFormat = "%-16s %10s %10s %9s %9s %9s %9s %9s\n"

var topHeader = strings.TrimRight(fmt.Sprintf(topFormat, "OPERATION", "per s", "MiB/s", "p50", "p99", "max", "errors/s", "in flight"), "\n")

// table returns the rows of the operations and of their total, lines rows at most (-1: all).
func (i *interval) table(by topOrder, lines int) string {
	names := slices.SortedFunc(maps.Keys(i.Operations), func(a, b string) int {
		x, y := i.Operations[a], i.Operations[b]
		switch {
		case by == byRate && x.Count != y.Count:
			return int(min(max(int64(y.Count-x.Count), -1), 1))
		case by == byP99 && x.P99 != y.P99:
			return int(min(max(int64(y.P99-x.P99), -1), 1))
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	if lines >= 0 {
		names = names[:min(len(names), max(lines-1, 0))]
	}
	for _, name := range names {
		b.WriteString(i.Operations[name].row(name))
	}
	b.WriteString(i.Total.row("all"))
	return b.String()
}

func (o operationInterval) row(name string) string {
	data := ""
	if o.Bytes > 0 {
		data = formatRate(o.DataRate / (1 << 20))
	}
	return fmt.Sprintf(topFormat, name, formatRate(o.Rate), data, formatTime(o.P50), formatTime(o.P99), formatTime(o.Max),
		formatRate(float64(o.Errors)*o.Rate/float64(max(o.Count, 1))), fmt.Sprint(o.InFlight))
}

// formatRate formats a number, with one decimal if it is below 100.
func formatRate(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// formatTime formats a time in ns for people, with about three digits.
func formatTime(ns uint64) string {
	v, unit := float64(ns), "ns"
	for _, u := range []string{"µs", "ms", "s"} {
		if v >= 999.5 {
			v, unit = v/1000, u
		}
	}
	if v < 99.95 && unit != "ns" {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}
