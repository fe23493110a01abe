package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pmem"
)

// grants returns what programs may map: at most most grants with keys from from on.
func (f *facts) grants(from uint64, most int) []fusefs.Grant {
	all := []fusefs.Grant{}
	sizes := pageSizes(f.region.Kind().String(), f.region.Align(), f.core.PageSize)
	for _, i := range f.core.Direct().Grants() {
		g := describeGrant(&i, sizes)
		if g.Key() >= from {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b fusefs.Grant) int { return cmp.Compare(a.Key(), b.Key()) })
	all = all[:min(len(all), most)]
	for i := range all {
		all[i].PID, all[i].Command = processOf(all[i].PID)
	}
	return all
}

// pageSizes returns by which pages a region can be mapped. inUse returns the size of the pages of
// an existing mapping.
func pageSizes(kind string, align int64, inUse func() int64) hugepage.PageSizes {
	s := hugepage.PageSizes{Granule: layout.BlockSize, Largest: layout.BlockSize}
	switch kind {
	case pmem.KindDevDax.String(), pmem.KindHugetlb.String():
		s.Granule = uint64(max(align, layout.BlockSize))
		s.Largest = s.Granule
	case pmem.KindFSDax.String():
		s.Largest = hugepage.BlockSize << hugepage.DefaultOrders.PMD
	case pmem.KindTmpfs.String(), pmem.KindFile.String():
		s.Largest = uint64(max(inUse(), layout.BlockSize))
	}
	return s
}

// describeGrant describes a grant. The PID may be that of a thread.
func describeGrant(i *lease.Info, sizes hugepage.PageSizes) fusefs.Grant {
	g := fusefs.Grant{ID: i.ID, PID: int(i.PID), UID: i.UID, Inode: i.Ino, Bytes: int64(i.Blocks) << layout.BlockShift, Mode: "ro", State: fusefs.GrantMapped, Stale: i.Stale}
	if i.Writable {
		g.Mode = "rw"
	}
	if i.Promised {
		g.State = fusefs.GrantPromised
	}
	if since := i.Since.UTC(); !since.IsZero() {
		g.Since = &since
	}
	runs := make([]hugepage.Run, 0, len(i.Parts))
	for _, p := range i.Parts {
		runs = append(runs, hugepage.Run{File: p.Logical << layout.BlockShift, Region: p.Block << layout.BlockShift, Length: p.N << layout.BlockShift})
	}
	if i.ID == 0 {
		g.State, g.Region = fusefs.GrantFound, int64(runs[0].Region)
	}
	g.Pages = pageBytes(sizes, sizes.Of(runs)...)
	return g
}

// pageBytes returns the sum of pages, the largest first.
func pageBytes(sizes hugepage.PageSizes, pages ...hugepage.Pages) []fusefs.PageBytes {
	sum := hugepage.Pages{}
	for _, p := range pages {
		sum.Largest, sum.Granule, sum.None = sum.Largest+p.Largest, sum.Granule+p.Granule, sum.None+p.None
	}
	all := []fusefs.PageBytes{{Size: sizes.Largest, Bytes: sum.Largest}, {Size: sizes.Granule, Bytes: sum.Granule}, {Bytes: sum.None}}
	return slices.DeleteFunc(all, func(p fusefs.PageBytes) bool { return p.Bytes == 0 })
}

// processOf returns the process that a thread belongs to, and the process's name, if the thread
// lives; otherwise the thread's number.
func processOf(tid int) (pid int, command string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil || tid <= 0 {
		return tid, ""
	}
	pid = tid
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Tgid:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
				pid = n
			}
		}
	}
	if b, err = os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil {
		return pid, ""
	}
	return pid, strings.TrimSuffix(string(b), "\n")
}

// askGrants asks the daemon behind a mount point for the grants that it made, and finds the names
// of their files.
func askGrants(mountpoint string) ([]fusefs.Grant, error) {
	all := []fusefs.Grant{}
	for next := uint64(0); ; {
		var part fusefs.Grants
		err := ask(mountpoint, fusefs.GrantsFrom(next), 5*time.Second, &part)
		switch {
		case errors.Is(err, unix.ENODATA):
			return nil, fmt.Errorf("the daemon behind %s is too old to tell what programs map; unmount and mount again", mountpoint)
		case errors.Is(err, errSilent):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("asking the daemon behind %s: %w", mountpoint, err)
		}
		all = append(all, part.Grants...)
		if part.Next <= next {
			nameFiles(mountpoint, all)
			return all, nil
		}
		next = part.Next
	}
}

// nameFiles sets File of grants, as far as the processes that have them can be seen.
// also are processes that may have the files, too.
func nameFiles(mountpoint string, all []fusefs.Grant, also ...regionUser) {
	m, err := mountAt(mountpoint)
	if err != nil || m == nil {
		return
	}
	var pids []int
	for _, g := range all {
		if g.PID > 0 && g.Inode != 0 {
			pids = append(pids, g.PID)
		}
	}
	for _, u := range also { // a child of a process that has ended, say
		pids = append(pids, u.PID)
	}
	slices.Sort(pids)
	names := limited(func() map[uint64]string {
		names := map[uint64]string{}
		for _, pid := range slices.Compact(pids) {
			filesOf(pid, m, names)
		}
		return names
	})
	for i := range all {
		if all[i].File = names[all[i].Inode]; all[i].Inode == 0 {
			all[i].File = ""
		}
	}
}

// grantsTable prints grants for people.
func grantsTable(out io.Writer, all []fusefs.Grant) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tCOMMAND\tMODE\tBYTES\tPAGES\tSTATE\tFILE")
	for _, g := range all {
		state := g.State
		if g.Stale {
			state += ", stale"
		}
		pid := "-"
		if g.PID > 0 {
			pid = strconv.Itoa(g.PID)
		}
		file := quoted(g.File)
		switch {
		case file != "":
		case g.Inode != 0:
			file = fmt.Sprintf("inode %d", g.Inode)
		case g.State == fusefs.GrantFound:
			file = fmt.Sprintf("offset %#x of the region", g.Region)
		default:
			file = "(deleted)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", pid, quoted(cmp.Or(g.Command, "-")), g.Mode, formatSize(g.Bytes), pagesText(g.Pages), state, file)
	}
	w.Flush()
}

// someGrants prints at most mostGrants of the grants of a mount for people.
func someGrants(out io.Writer, all []fusefs.Grant, mountpoint string) {
	grantsTable(out, all[:min(len(all), mostGrants)])
	if more := len(all) - mostGrants; more > 0 {
		fmt.Fprintf(out, "and %d more: `daxfsd leases %s`\n", more, quoted(mountpoint))
	}
}

// mostGrants is how many grants info and top print.
const mostGrants = 16

// pagesText describes by which pages something would be mapped.
func pagesText(pages []fusefs.PageBytes) string {
	var words []string
	for _, p := range pages {
		word := formatSize(int64(p.Size))
		if p.Size == 0 {
			word = "apart"
		}
		if len(pages) > 1 {
			word += ": " + formatSize(int64(p.Bytes))
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// grantsText describes grants in one line.
func grantsText(all []fusefs.Grant) string {
	if len(all) == 0 {
		return ""
	}
	n, stale := int64(0), 0
	processes := map[int]bool{}
	for _, g := range all {
		n += min(g.Bytes, math.MaxInt64-n)
		processes[g.PID] = true
		if g.Stale {
			stale++
		}
	}
	s := fmt.Sprintf("%d of %s to %d process", len(all), formatSize(n), len(processes))
	if len(processes) != 1 {
		s += "es"
	}
	if stale > 0 {
		s += fmt.Sprintf(", %d of them stale", stale)
	}
	return s
}
