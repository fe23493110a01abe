package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/pmem"
)

func leasesCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "leases [--json] MOUNTPOINT | REGION",
		Short: "List which programs map files' own memory",
		Long: `List the grants by which programs map files' own memory (docs/direct.md), and the
processes that map the region.

Of a mounted filesystem the daemon tells the grants: the process that asked, its
name, ro or rw, how much, by which pages it can be mapped, and the file. Its path is
shown if that process may be looked into. The state is "promised" before the program
maps it, "mapped" while the kernel has the program's lock, and "found" for what was
locked already when the filesystem was mounted. A stale grant keeps its memory, but
that may not be the file's any more. A process that asked may have ended; a child of
it then has the mapping.

Of a region that is not mounted, or whose daemon is gone or does not answer, the
kernel's locks tell how much is mapped.

--json prints one object: "grants" as above, "processes" that map the region or have
it open ("mapped_bytes" in whole pages), "leased_bytes", of these "leased_free_bytes"
that no file has any more and that become free when the programs end, and "locks":
the number of grants that programs have locked. Whoever may not see a process or open
the region sees less.`,
		Example: `  daxfsd leases /mnt
  daxfsd leases --json /dev/dax0.0`,
		Args: args("MOUNTPOINT or REGION"),
		RunE: func(c *cobra.Command, a []string) error {
			l, err := collectLeases(a[0])
			if err != nil {
				return err
			}
			if asJSON {
				printJSON(c, l)
				return nil
			}
			l.print(c.OutOrStdout())
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return c
}

// leases is the output of the command; scripts rely on its fields.
type leases struct {
	Region     string         `json:"region"`
	Mountpoint string         `json:"mountpoint,omitempty"`
	Leased     int64          `json:"leased_bytes"`
	Free       int64          `json:"leased_free_bytes"` // of a mounted filesystem
	Locks      int            `json:"locks"`
	Grants     []fusefs.Grant `json:"grants"` // of a mounted filesystem
	Processes  []regionUser   `json:"processes"`
	Note       string         `json:"note,omitempty"` // why the daemon was not asked
}

// collectLeases describes arg, which is a mount point or a region.
func collectLeases(arg string) (*leases, error) {
	m, path, err := mountOrRegion(arg)
	if err != nil {
		return nil, err
	}
	if m != nil {
		return mountLeases(m)
	}
	region, err := openRegion(path, pmem.Options{ReadOnly: true, Shared: true})
	if err != nil {
		return nil, err
	}
	defer region.Close()
	if _, _, err := fs.ReadSuper(region); err != nil {
		return nil, superError(path, region, err)
	}
	return regionLeases(path)
}

// regionLeases describes what the kernel knows of a region.
func regionLeases(path string) (*leases, error) {
	l := &leases{Region: path, Grants: []fusefs.Grant{}}
	return l, l.look(lockHolder(path)) // a daemon maps all of it
}

// mountLeases asks the daemon of a mount, and looks at its region as far as it may. If the daemon
// is gone or does not answer, the kernel still knows.
func mountLeases(m *mountinfo.Info) (*leases, error) {
	mountpoint := m.Mountpoint
	d, err := askDaemon(mountpoint, 5*time.Second)
	if gone := disconnected(err); gone || errors.Is(err, errSilent) {
		l, rerr := regionLeases(m.Source)
		switch {
		case rerr != nil && gone:
			return nil, rerr
		case rerr != nil:
			return nil, err
		case gone:
			l.Note = fmt.Sprintf("the daemon of the mount on %s is gone; `daxfsd umount %s` removes it", mountpoint, mountpoint)
		default:
			l.Note = err.Error()
		}
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking the daemon behind %s: %w", mountpoint, err)
	}
	l := &leases{Region: d.Region, Mountpoint: mountpoint}
	if l.Grants, err = askGrants(mountpoint); err != nil {
		return nil, err
	}
	_ = l.look(d.PID) // not everybody may
	nameFiles(mountpoint, l.Grants, l.Processes...)
	l.Leased, l.Free = int64(d.LeasedBytes), int64(d.LeasedDeferred)
	return l, nil
}

// look finds out what the kernel knows of the region.
func (l *leases) look(except ...int) error {
	l.Processes = append([]regionUser{}, regionUsers(l.Region, except...)...)
	locked, err := leasedAt(l.Region)
	if err != nil {
		return err
	}
	l.Leased, l.Locks = locked.Bytes, locked.Grants
	return nil
}

func (l *leases) print(out io.Writer) {
	if len(l.Grants) > 0 {
		grantsTable(out, l.Grants)
		fmt.Fprintln(out)
	}
	if len(l.Processes) > 0 {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "PID\tCOMMAND\tMODE\tMAPS OF THE REGION")
		for _, p := range l.Processes {
			mode, mapped := "ro", formatSize(p.Mapped)
			if p.Writable {
				mode = "rw"
			}
			if p.Mapped == 0 {
				mode, mapped = "-", "nothing; has it open"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", strconv.Itoa(p.PID), quoted(p.Command), mode, mapped)
		}
		w.Flush()
		fmt.Fprintln(out)
	}
	switch {
	case l.Leased == 0 && len(l.Grants) == 0 && l.Locks == 0:
		fmt.Fprintf(out, "%s: no program maps files' memory\n", quoted(l.Region))
	case l.Free > 0:
		fmt.Fprintf(out, "%s: %s are leased; %s of them belong to no file and become free when the programs end\n", quoted(l.Region), formatSize(l.Leased), formatSize(l.Free))
	default:
		fmt.Fprintf(out, "%s: %s are leased\n", quoted(l.Region), formatSize(l.Leased))
	}
	if l.Note != "" {
		fmt.Fprintf(out, "%s\n", quoted(l.Note))
	}
}
