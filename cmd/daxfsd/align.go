package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/fs/fusefs"
)

const (
	page2M = 2 << 20
	page1G = 1 << 30
)

func alignCommand() *cobra.Command {
	page, asJSON := sizeFlag(page2M), false
	c := &cobra.Command{
		Use:   "align [--page-size SIZE] FILE...",
		Short: "Lay files out for mapping in large pages",
		Long: `Move the blocks of files on a mounted daxfsd so that programs can map them directly in
pages of 2 MiB or 1 GiB, and note that for what the files get later (the extent size
hint, which FS_IOC_FSGETXATTR and xfs_io show as well). Of a directory, only note it:
files that are created in it inherit the hint.

The files may be in use meanwhile. Blocks that programs map, or that several files share,
stay where they are, and so does what there is no room for; that is no failure. The
output says how much pages of each size can map, before and after.`,
		Example: `  daxfsd align /mnt/weights
  daxfsd align --page-size 1GiB /mnt/weights /mnt/cache`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			if err := noneEmpty(names, "FILE"); err != nil {
				return err
			}
			if page != page2M && page != page1G {
				return usagef("pages of %s: expected --page-size 2MiB or 1GiB", formatSize(int64(page)))
			}
			all, failed := []alignment{}, false
			for _, name := range names {
				a, err := align(name, int64(page), newProgress(os.Stderr))
				if err != nil { // go on with the other files
					fmt.Fprintf(c.ErrOrStderr(), "daxfsd: align: %s\n", oneSentence(err))
					failed = true
					continue
				}
				if all = append(all, a); !asJSON {
					fmt.Fprintln(c.OutOrStdout(), a.line())
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
	c.Flags().Var(&page, "page-size", "size of the pages: 2MiB or 1GiB")
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return c
}

// alignment is the output for one file; scripts rely on its fields. All numbers are bytes.
type alignment struct {
	File      string   `json:"file"`
	PageSize  int64    `json:"page_size"`
	Directory bool     `json:"directory"`
	Bytes     int64    `json:"bytes"` // size of the file
	Before    mappable `json:"before"`
	After     mappable `json:"after"`
}

// mappable is how many bytes pages of at least a size can map.
type mappable struct {
	In2M int64 `json:"in_2mib"`
	In1G int64 `json:"in_1gib"`
}

// align sets the hint of a file and promotes what the file has.
func align(name string, page int64, p *progress) (a alignment, err error) {
	if err := answering(name); errors.Is(err, errSilent) {
		return a, err
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return a, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return a, err
	}
	a = alignment{File: name, PageSize: page, Directory: info.IsDir(), Bytes: info.Size()}
	if !a.Directory && !info.Mode().IsRegular() {
		return a, fmt.Errorf("%s is neither a regular file nor a directory", name)
	}
	x, err := extentsOf(name)
	if err != nil {
		return a, err
	}
	if err := direct.SetPageSize(f, page); err != nil {
		return a, err
	}
	if a.Directory {
		a.Bytes = 0
		return a, nil
	}
	a.Before = mappableOf(x)
	defer p.end()
	const piece = 64 << 20
	for off := int64(0); off < a.Bytes; off += max(page, piece) {
		p.update("moving blocks of "+quoted(name), off, a.Bytes)
		if err := direct.Promote(f, off, max(page, piece), page); err != nil {
			return a, err
		}
	}
	if x, err = extentsOf(name); err != nil {
		return a, err
	}
	a.After = mappableOf(x)
	return a, nil
}

// mappableOf returns what large pages can map of a file with these extents.
func mappableOf(x []fusefs.Extent) (m mappable) {
	for i := 0; i < len(x); {
		off, region, end := int64(x[i].Logical), int64(x[i].Region), int64(x[i].Logical+x[i].Length)
		for i++; i < len(x) && int64(x[i].Logical) == end && int64(x[i].Region)-end == region-off; i++ {
			end += int64(x[i].Length)
		}
		for _, of := range [...]struct {
			page int64
			n    *int64
		}{{page2M, &m.In2M}, {page1G, &m.In1G}} {
			if (off-region)%of.page == 0 {
				*of.n += max(0, end/of.page-(off+of.page-1)/of.page) * of.page
			}
		}
	}
	return m
}

// line says in one line what large pages can map.
func (a *alignment) line() string {
	if a.Directory {
		return fmt.Sprintf("%s: new files get pages of %s", quoted(a.File), formatSize(a.PageSize))
	}
	s := fmt.Sprintf("%s: %s; mappable in pages of 2 MiB: %s, before: %s", quoted(a.File), formatSize(a.Bytes), formatSize(a.After.In2M), formatSize(a.Before.In2M))
	if a.PageSize == page1G {
		s += fmt.Sprintf("; in pages of 1 GiB: %s, before: %s", formatSize(a.After.In1G), formatSize(a.Before.In1G))
	}
	return s
}
