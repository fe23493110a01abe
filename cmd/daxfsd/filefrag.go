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
)

func filefragCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "filefrag [--json] FILE...",
		Short: "List the extents of files",
		Long: `List the extents of files on a mounted daxfsd: the offset in the file, the offset in
the region, the length, the size of the folios that hold the data (the page size that
a mapping could use), and whether the extent is unwritten (allocated, reads as zeros)
or shared with other files. Other filesystems report this through FIEMAP, which FUSE
does not pass on.`,
		Example: `  daxfsd filefrag /mnt/data
  daxfsd filefrag --json /mnt/data`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			if err := noneEmpty(names, "FILE"); err != nil {
				return err
			}
			all, failed := []fileExtents{}, false
			for _, name := range names {
				extents, err := extentsOf(name)
				if err != nil { // go on with the other files
					fmt.Fprintf(c.ErrOrStderr(), "daxfsd: filefrag: %s\n", oneSentence(err))
					failed = true
					continue
				}
				file := fileExtents{name, extents}
				if all = append(all, file); !asJSON {
					fmt.Fprint(c.OutOrStdout(), file.table())
				}
			}
			if asJSON {
				encoder := json.NewEncoder(c.OutOrStdout())
				encoder.SetIndent("", "  ")
				_ = encoder.Encode(all)
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
	File    string          `json:"file"`
	Extents []fusefs.Extent `json:"extents"`
}

func extentsOf(name string) ([]fusefs.Extent, error) {
	if err := answering(name); errors.Is(err, errSilent) {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // not the owner
		f, err = os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := fusefs.Extents(int(f.Fd()))
	if errors.Is(err, unix.ENOTTY) {
		return nil, fmt.Errorf("%s is not a file or directory on a mounted daxfsd", name)
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the extents of %s: %w", name, err)
	}
	if x == nil {
		x = []fusefs.Extent{}
	}
	return x, nil
}

// table formats the extents of one file like filefrag -v.
func (f *fileExtents) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d extent(s)\n", quoted(f.File), len(f.Extents))
	if len(f.Extents) == 0 {
		return b.String()
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "offset\tregion offset\tlength\tfolio\tflags\t")
	for _, x := range f.Extents {
		flags := ""
		if x.Unwritten {
			flags = "unwritten"
		}
		if x.Shared {
			flags = strings.TrimPrefix(flags+",shared", ",")
		}
		fmt.Fprintf(w, "%#x\t%#x\t%s\t%s\t%s\t\n", x.Logical, x.Region, formatSize(int64(x.Length)), formatSize(int64(x.Folio)), flags)
	}
	w.Flush()
	return b.String()
}
