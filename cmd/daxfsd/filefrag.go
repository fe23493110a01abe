package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/hugepage"
)

func filefragCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "filefrag [--json] FILE...",
		Short: "List the extents of files",
		Long: `List the extents of files on a mounted daxfsd: the offset in the file, the offset in
the region, the length, the size of the folios that hold the data, by which pages a
program can map it, and whether the extent is unwritten (allocated, reads as zeros) or
shared with other files. Other filesystems report this through FIEMAP, which FUSE does
not pass on.

The pages are those of one mapping of the whole file by a program that is granted the
file's own memory (docs/direct.md). They follow from where the data lies in the region
and from the kind of region: device-dax and hugetlbfs have pages of one size, fsdax has
2 MiB where an aligned part allows it, and so have tmpfs and other files if the
kernel's mapping of the region has ("mapped by" of ` + "`daxfsd info`" + `). "apart" is what one mapping cannot contain together with the rest.
` + "`daxfsd align`" + ` makes large pages possible.`,
		Example: `  daxfsd filefrag /mnt/data
  daxfsd filefrag --json /mnt/data`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			if err := noneEmpty(names, "FILE"); err != nil {
				return err
			}
			all, failed := []fileExtents{}, false
			for _, name := range names {
				file, err := fileExtentsOf(name)
				if err != nil { // go on with the other files
					fmt.Fprintf(c.ErrOrStderr(), "daxfsd: filefrag: %s\n", oneSentence(err))
					failed = true
					continue
				}
				if all = append(all, *file); !asJSON {
					fmt.Fprint(c.OutOrStdout(), file.table())
				}
			}
			if asJSON {
				printJSON(c, all)
			}
			if failed {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return c
}

// fileExtents is the output for one file; scripts rely on its fields.
type fileExtents struct {
	File    string       `json:"file"`
	Extents []fileExtent `json:"extents"`
	// Pages is by which pages a mapping of a regular file would be made, the largest first.
	Pages []fusefs.PageBytes `json:"pages,omitempty"`
}

// fileExtent is an extent, and by which pages it can be mapped.
type fileExtent struct {
	fusefs.Extent
	Pages []fusefs.PageBytes `json:"pages,omitempty"`
}

// extentsOf asks for the extents of a file.
func extentsOf(name string) ([]fusefs.Extent, error) {
	x, f, err := openExtents(name)
	if err == nil {
		f.Close()
	}
	return x, err
}

// fileExtentsOf asks for the extents of a file, and by which pages they can be mapped.
func fileExtentsOf(name string) (*fileExtents, error) {
	x, f, err := openExtents(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := &fileExtents{File: name, Extents: make([]fileExtent, len(x))}
	for i := range x {
		all.Extents[i].Extent = x[i]
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		err = all.addPages(int(f.Fd()))
	}
	if err != nil {
		return nil, fmt.Errorf("asking the daemon that has %s: %w", name, err)
	}
	return all, nil
}

// openExtents opens a file and asks for its extents.
func openExtents(name string) ([]fusefs.Extent, *os.File, error) {
	if err := answering(name); errors.Is(err, errSilent) {
		return nil, nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // not the owner
		f, err = os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, nil, err
	}
	x, err := fusefs.Extents(int(f.Fd()))
	if err == nil {
		return x, f, nil
	}
	f.Close()
	if errors.Is(err, unix.ENOTTY) {
		return nil, nil, fmt.Errorf("%s is not a file or directory on a mounted daxfsd", name)
	}
	return nil, nil, fmt.Errorf("asking for the extents of %s: %w", name, err)
}

// addPages adds by which pages the file can be mapped. fd is the open file.
func (f *fileExtents) addPages(fd int) error {
	b := make([]byte, 64<<10)
	n, err := unix.Fgetxattr(fd, fusefs.InfoXattr, b)
	if err != nil {
		return err
	}
	var d fusefs.Info
	if err := json.Unmarshal(b[:n], &d); err != nil {
		return err
	}
	sizes := pageSizes(d.Kind, d.Align, func() int64 { return d.PageSize })
	runs := make([]hugepage.Run, len(f.Extents))
	for i, x := range f.Extents {
		runs[i] = hugepage.Run{File: x.Logical, Region: x.Region, Length: x.Length}
	}
	pages := sizes.Of(runs)
	for i, p := range pages {
		f.Extents[i].Pages = pageBytes(sizes, p)
	}
	f.Pages = pageBytes(sizes, pages...)
	return nil
}

// table formats the extents of one file like filefrag -v.
func (f *fileExtents) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d extent(s)\n", quoted(f.File), len(f.Extents))
	if len(f.Extents) == 0 {
		return b.String()
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "offset\tregion offset\tlength\tfolio\tpages\tflags\t")
	for _, x := range f.Extents {
		flags := ""
		if x.Unwritten {
			flags = "unwritten"
		}
		if x.Shared {
			flags = strings.TrimPrefix(flags+",shared", ",")
		}
		fmt.Fprintf(w, "%#x\t%#x\t%s\t%s\t%s\t%s\t\n", x.Logical, x.Region, formatSize(int64(x.Length)), formatSize(int64(x.Folio)), pagesText(x.Pages), flags)
	}
	w.Flush()
	if len(f.Pages) > 0 {
		fmt.Fprintf(&b, "a mapping would have pages of %s\n", pagesText(f.Pages))
	}
	return b.String()
}
