package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

func infoCommand() *cobra.Command {
	var asJSON, buckets bool
	c := &cobra.Command{
		Use:   "info [--json [--buckets]] REGION | MOUNTPOINT",
		Short: "Describe a region or a mount",
		Long: `Describe a daxfsd: the kind of its region, what survives a power failure, how full
it is, and who has it mounted. If it is mounted, name the mount point or the region;
otherwise name the region. Nothing is changed.

With --json the object "mount" of a mounted filesystem also has what it has served
since it was mounted ("operations") and the state of the daemon's memory
("runtime"). Each kind of request has its number ("count"), the "errors" caused by
lack of space or memory or by damage, the "negative" answers such as "no such name",
the bytes moved, and how long the daemon took, in nanoseconds: p50, p90, p99, p99.9
and max. --buckets adds the histograms: number i of "buckets" counts the requests
that took less than number i of "bucket_bounds_ns", and at least number i-1.
` + "`daxfsd top`" + ` shows what is being served right now.`,
		Example: `  daxfsd info /mnt
  daxfsd info --json /dev/dax0.0
  daxfsd info --json /mnt | jq .mount.operations.READ`,
		Args: args("REGION or MOUNTPOINT"),
		RunE: func(c *cobra.Command, a []string) error {
			if buckets && !asJSON {
				return usagef("--buckets needs --json")
			}
			i, err := collectInfo(a[0])
			if err == nil && buckets {
				err = i.addBuckets()
			}
			if err != nil {
				return err
			}
			if asJSON {
				printJSON(c, i)
				return nil
			}
			i.print(c)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	c.Flags().BoolVar(&buckets, "buckets", false, "with --json: add the histograms of latencies of a mount")
	return c
}

// info is the output of the command; scripts rely on its fields. What is known only of a mounted
// filesystem is in Mount. Sizes are in bytes.
type info struct {
	Region     string       `json:"region"`
	Kind       string       `json:"kind"`
	RegionSize int64        `json:"region_size"`
	Align      int64        `json:"align"`
	Durability string       `json:"durability"`
	Promise    string       `json:"promise"` // explains Durability in one sentence
	Size       int64        `json:"size"`
	Label      string       `json:"label"`
	UUID       string       `json:"uuid"`
	Format     uint32       `json:"format"`
	Created    time.Time    `json:"created"`
	BadRanges  int          `json:"bad_ranges"`             // ranges of memory that cannot be read
	BadBytes   int64        `json:"bad_bytes"`              // bytes in these ranges
	Leased     int64        `json:"leased_bytes,omitempty"` // of files, that programs map although it is not mounted
	State      string       `json:"state"`                  // mounted, clean, dirty, damaged, stale, silent, in use
	Note       string       `json:"note,omitempty"`
	Mount      *fusefs.Info `json:"mount,omitempty"`
	// Grants is what programs may map of a mounted filesystem's files.
	Grants []fusefs.Grant `json:"grants,omitempty"`

	at string // mount point through which the daemon was asked
}

// collectInfo describes arg, which is a mount point or a region.
func collectInfo(arg string) (*info, error) {
	m, path, err := mountOrRegion(arg)
	switch {
	case err != nil:
		return nil, err
	case m == nil:
		return regionInfo(path)
	}
	i, err := mountInfo(m)
	if err == nil && path != "" {
		i.Region = path // the name it has now
	}
	return i, err
}

// mountOrRegion finds what arg names: the mount m if it is a mount point, or a region that is
// mounted; the region at path if arg is one.
func mountOrRegion(arg string) (m *mountinfo.Info, path string, err error) {
	f, err := find(arg)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
		return nil, "", err
	}
	if err == nil {
		if m := f.daxfsd(); m != nil {
			return m, "", nil
		}
		if f.mode&unix.S_IFMT == unix.S_IFDIR {
			return nil, "", fmt.Errorf("%s is a directory with no daxfsd mounted on it", f.path)
		}
	}
	if path, err = regionPath(arg); err != nil {
		return nil, "", err
	}
	return serving(path), path, nil
}

// mountInfo asks the daemon. If the daemon is gone or does not answer, it reads the region.
func mountInfo(m *mountinfo.Info) (*info, error) {
	d, err := askDaemon(m.Mountpoint, 5*time.Second)
	if disconnected(err) {
		i, rerr := regionInfo(m.Source)
		if rerr != nil {
			return nil, rerr
		}
		i.State, i.Note = "stale", "the daemon of the mount on "+m.Mountpoint+" is gone; `daxfsd umount "+m.Mountpoint+"` removes it"
		return i, nil
	}
	if errors.Is(err, errSilent) {
		i, rerr := regionInfo(m.Source)
		if rerr != nil {
			return nil, err
		}
		i.State, i.Note = "silent", err.Error()
		return i, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking the daemon behind %s: %w", m.Mountpoint, err)
	}
	i := &info{Region: d.Region, State: "mounted", Note: d.Failed, Mount: d, at: m.Mountpoint}
	i.Kind, i.RegionSize, i.Align, i.Durability, i.Promise = d.Kind, d.RegionSize, d.Align, d.Durability, d.Promise
	i.Size, i.Label, i.UUID, i.Format, i.Created = d.Size, d.Label, d.UUID, d.Format, d.Created
	i.BadRanges, i.BadBytes = d.BadRanges, int64(d.BadBytes)
	if d.LeasedBytes > 0 { // else there are none, or of holes only
		i.Grants, err = askGrants(m.Mountpoint)
	}
	return i, err
}

// addBuckets adds the daemon's histograms, if there is a daemon.
func (i *info) addBuckets() error {
	if i.Mount == nil {
		return nil
	}
	a, err := askActivity(i.at)
	if err == nil {
		i.Mount.Operations, i.Mount.BucketBounds = a.Operations, transport.BucketBounds()
	}
	return err
}

func regionInfo(path string) (*info, error) {
	region, err := openRegion(path, pmem.Options{ReadOnly: true, Shared: true})
	if err != nil {
		return nil, err
	}
	defer region.Close()
	super, backup, err := fs.ReadSuper(region)
	if err != nil {
		return nil, superError(path, region, err)
	}
	i := describe(path, region, super)
	bad, err := badmem.Known(region, super)
	if err != nil {
		return nil, err
	}
	i.BadRanges = len(bad)
	for _, badRange := range bad {
		i.BadBytes += badRange.Len
	}
	record, ok, err := fs.ReadOwner(region, super)
	switch {
	case err != nil:
		return nil, err
	case !ok || record.State == layout.OwnerMounted:
		i.State = "dirty"
		i.Note = "not unmounted: the next mount recovers by itself"
		if uncleanHostStop(region, super) {
			i.Note = "the host went down while it was mounted: the next mount checks it first"
		}
	default:
		i.State = "clean"
	}
	if ok && record.Damaged {
		i.State = "damaged"
		i.Note = "damage was found while it was mounted; `daxfsd fsck -y` repairs it"
	}
	if user := heldBy(path); user != "" {
		i.State, i.Note = "in use", user
	} else if i.State == "dirty" { // a user through another node or on another host does not hold this lock
		verdict, err := owner.Judge(region, super, owner.Options{})
		switch {
		case err != nil:
			return nil, err
		case verdict.Use == owner.InUse:
			i.State, i.Note = "in use", verdict.Why
		case verdict.Use == owner.Unclear:
			i.Note = "not unmounted, and perhaps in use: " + verdict.Why
		case verdict.Copy:
			i.Note = "a copy of a region that was not unmounted: the next mount checks it first"
		}
	}
	l, err := leasedOf(region)
	if err != nil {
		return nil, err
	}
	i.Leased = l.Bytes
	if backup {
		i.Note = strings.TrimPrefix(i.Note+"; the first superblock is damaged, this is read from the second", "; ")
	}
	return i, nil
}

// describe returns what the region and its superblock tell.
func describe(path string, r *pmem.Region, sb *layout.Superblock) *info {
	return &info{
		Region: path, Kind: r.Kind().String(), RegionSize: r.Size(), Align: r.Align(),
		Durability: r.Durability().String(), Promise: durabilityText(r.Durability()),
		Size: sb.Size, Label: sb.Label, UUID: uuidString(sb.UUID), Format: sb.Version,
		Created: time.Unix(0, sb.Created).UTC(),
	}
}

// formatBlocks formats the size of n blocks for people.
func formatBlocks(n uint64) string { return formatSize(int64(n) * layout.BlockSize) }

// directText describes which grants a mount makes.
func directText(m *fusefs.Info) string {
	switch {
	case m.WhyNotDirect != "":
		return "off: " + m.WhyNotDirect
	case m.Direct == fs.DirectRead.String() && m.AtomicWrite > 8 && slices.Contains(m.Options, "direct=rw"):
		return "ro, because of the option atomic"
	}
	return m.Direct
}

// leasedText describes how much is leased to programs.
func leasedText(leased, free uint64) string {
	switch {
	case leased == 0:
		return ""
	case free == 0:
		return formatSize(int64(leased))
	}
	return fmt.Sprintf("%s, of which %s are of no file and become free when the programs end", formatSize(int64(leased)), formatSize(int64(free)))
}

// served describes in one line the requests that a daemon has served.
func served(o transport.Operation) string {
	return fmt.Sprintf("%d requests, %d of them failed, %s read and written", o.Count, o.Errors, formatSize(int64(o.Bytes)))
}

func (i *info) print(c *cobra.Command) {
	rows := [][2]string{
		{"region", i.Region}, {"kind", i.Kind}, {"align", formatSize(i.Align)},
		{"durability", i.Promise}, {"label", i.Label}, {"uuid", i.UUID},
		{"created", i.Created.Local().Format(time.RFC1123)},
		{"size", formatSize(i.Size)},
	}
	if i.BadRanges > 0 {
		rows = append(rows, [2]string{"bad memory", fmt.Sprintf("%s in %d ranges; `daxfsd fsck -n` names the files that lost data", formatSize(i.BadBytes), i.BadRanges)})
	}
	if m := i.Mount; m != nil {
		rows = append(rows, // the figures and words of df(1) and fsck
			[2]string{"for files", formatBlocks(m.Blocks)},
			[2]string{"used", formatBlocks(m.Blocks - m.FreeBlocks)},
			[2]string{"free", formatBlocks(m.FreeBlocks) + ", of which " + formatBlocks(m.AvailableBlocks) + " are available to all"},
			[2]string{"mapped by", formatSize(m.PageSize) + " pages"},
			[2]string{"folios", fmt.Sprintf("%d of 1 GiB, %d of 2 MiB, %d of 4 KiB: %.1f %% of the data in large ones", m.Folios1G, m.Folios2M, m.Folios4K, 100*m.PMDMappable)},
			[2]string{"inodes", fmt.Sprintf("%d used, %d free", m.Inodes, m.FreeInodes)},
			[2]string{"state", "mounted on " + m.Mountpoint + " by process " + fmt.Sprint(m.PID)},
			[2]string{"atomic", "writes of up to " + formatSize(int64(m.AtomicWrite))},
			[2]string{"options", strings.Join(m.Options, ",")},
			[2]string{"no io_uring", m.WhyNotUring},
			[2]string{"direct mapping", directText(m)},
			[2]string{"grants", grantsText(i.Grants)},
			[2]string{"leased", leasedText(m.LeasedBytes, m.LeasedDeferred)},
			[2]string{"since", fmt.Sprintf("%s (%s)", m.Since.Local().Format(time.RFC1123), time.Since(m.Since).Round(time.Second))},
			[2]string{"daemon", m.Version},
			[2]string{"served", served(m.Operations.Total())},
			[2]string{"memory", fmt.Sprintf("%s of heap, %d inodes cached, longest pause %v", formatSize(int64(m.Runtime.HeapBytes)), m.Runtime.CachedInodes, time.Duration(m.Runtime.GCPauseMax))},
		)
		if m.ReplayedRecords > 0 || m.FreedOrphans > 0 {
			rows = append(rows, [2]string{"recovered", fmt.Sprintf("%d journal records, %d orphans", m.ReplayedRecords, m.FreedOrphans)})
		}
	} else {
		rows = append(rows, [2]string{"state", i.State})
		if i.Leased > 0 {
			rows = append(rows, [2]string{"mapped by programs", formatSize(i.Leased) + "; `daxfsd leases` lists them"})
		}
	}
	table(c.OutOrStdout(), append(rows, [2]string{"note", i.Note}))
	if len(i.Grants) > 0 {
		fmt.Fprintln(c.OutOrStdout())
		someGrants(c.OutOrStdout(), i.Grants, i.at)
	}
}
