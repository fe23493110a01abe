// Command compare measures daxfsd side by side with what it has to be compared with, in one go and
// interleaved round by round: daxfsd on each transport and in each cache mode, the kernel's tmpfs
// (4 KiB pages), ext4, go-fuse's loopback over tmpfs, and the null bound: the same transport
// answering from a slice, with no filesystem behind it.
//
//	go run ./bench/compare --quick
//	go run ./bench/compare --json r.json --html r.html --plots plots --markdown r.md --check
//
// It owns the processes that serve, their mounts, their memory and the tables made of what fio
// and the metadata benchmark report. It never touches a mount from the process that serves it.
//
// Parts: supervise.go starts the measurement in a mount namespace of its own and cleans up after
// it; contender.go is what is measured, servers are loopback.go, null.go and daxfsd; fio.go,
// metadata.go, tree.go, extents.go, fairness.go and inodes.go measure; result.go keeps samples,
// targets.go judges them, and table.go, html.go and plot.go show them.
package main

import (
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"
)

// config is what the command line says.
type config struct {
	Rounds      int           `json:"rounds"`
	Runtime     time.Duration `json:"runtime_ns"` // of one run of fio
	Size        int64         `json:"size"`       // of one data file in bytes
	Files       int           `json:"files"`      // of the metadata benchmark
	Extents     int64         `json:"extents_size"`
	Huge        string        `json:"region_huge"`
	Tree        string        `json:"-"`
	Full        bool          `json:"full"`
	Quick       bool          `json:"quick"`
	TargetsOnly bool          `json:"targets_only"`

	dir                               string
	rows, contenders                  *regexp.Regexp
	json, html, plots, figure, report string
	check                             bool
}

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o config
	var rows, contenders string
	c := &cobra.Command{
		Use:   "compare [flags]",
		Short: "Measure daxfsd beside tmpfs, ext4, go-fuse's loopback and the null bound",
		Long: `Measure daxfsd beside what it has to be compared with. Every round measures every row on every
target, one after the other, so that whatever the machine does besides befalls all alike; what is
shown are medians over the rounds, and their ratios within this run. It runs as root, in a mount
namespace of its own, and takes away everything it made, also when it is interrupted.

Targets:
  daxfsd-dev, daxfsd-uring    daxfsd with dax=always (no cache of the kernel), requests by /dev/fuse, by io_uring
  daxfsd-*-cached            the same with dax=never: the kernel caches file data
  tmpfs                     the kernel's, 4 KiB pages
  ext4                      buffered: --dir itself if that is on ext4, else an image there
  loopback                  go-fuse's fs package over tmpfs, tuned, as little cached as daxfsd-*
  loopback-cached           the same with the kernel's cache, as daxfsd-*-cached
  passthrough               the same where the kernel reads and writes the file of tmpfs itself
  null-dev, null-uring      daxfsd's transports; READ is answered from a slice, WRITE copied into it

Rows:
  PATTERN/ENGINE/JOBS       fio: randread, randwrite, mixed (4 KiB), seqread, seqwrite (1 MiB);
                            psync, io_uring (32 in flight), mmap; 1, 2, 4 processes. bench/jobs
  meta/...                  create, stat-created, readdir, stat-listed, stat-cold (just mounted), rename, unlink
  tree/...                  untar, git-status and rm of a source tree
  load/fairness             1000 open files, 64 clients
  extents/one, extents/many 4 KiB random reads of a file of one extent, of 100 000
  bigdir/..., inodes/...    with --full: creating in a directory of a million; a million cached inodes

Targets are what the project demands of itself; each is shown as met or missed, or as not
measured if its rows were not selected. On a busy machine none of this means anything. Everything, in
five rounds, takes two hours; the rows of targets alone a quarter of that.`,
		Example: `  compare --quick
  compare --rows '^(randread|randwrite)/psync/2$' --rounds 7
  compare --targets --full --check --json r.json --markdown r.md`,
		Args:         cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		PreRun: func(c *cobra.Command, _ []string) {
			if o.Quick {
				quick(c)
			}
		},
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Rounds < 1 || o.Size < 1<<20 || o.Files < 1 {
				return fmt.Errorf("--rounds and --files are at least 1, --size at least 1 MiB")
			}
			if o.rows, err = regexp.Compile(rows); err != nil {
				return fmt.Errorf("--rows: %w", err)
			}
			if o.contenders, err = regexp.Compile(contenders); err != nil {
				return fmt.Errorf("--filesystems: %w", err)
			}
			if os.Getenv(dirEnv) == "" {
				return supervise(&o)
			}
			return run(c.Context(), &o)
		},
	}
	f := c.Flags()
	f.IntVar(&o.Rounds, "rounds", 5, "rounds, of which the median is shown")
	f.DurationVar(&o.Runtime, "runtime", 2*time.Second, "of each run of fio")
	f.StringVar(&rows, "rows", "", "measure the rows that this regular expression finds")
	f.StringVar(&contenders, "filesystems", "", "measure the filesystems that this one finds")
	f.BoolVar(&o.TargetsOnly, "targets", false, "measure only the rows that targets are set for")
	f.Int64Var(&o.Size, "size", 128<<20, "bytes of each of the four data files")
	f.IntVar(&o.Files, "files", 100_000, "files of the metadata benchmark")
	f.Int64Var(&o.Extents, "extents-size", 4<<30, "bytes of the file of many extents; there are two")
	f.StringVar(&o.Tree, "tree", "", "source tree to unpack (default: the Go toolchain's own source)")
	f.StringVar(&o.Huge, "region-huge", "never", "large pages of the tmpfs that the regions are on: never, always, within_size, advise")
	f.StringVar(&o.dir, "dir", "/var/tmp", "directory for a few files, best on ext4")
	f.BoolVar(&o.Full, "full", false, "also what takes long: a directory of a million, a million cached inodes (drops the machine's dentry cache once)")
	f.BoolVar(&o.Quick, "quick", false, "a minute's run of everything, to see that it works; its figures mean nothing")
	f.BoolVar(&o.check, "check", false, "exit with 1 if a target is missed or was not measured")
	f.StringVar(&o.json, "json", "", "write every sample to this file")
	f.StringVar(&o.html, "html", "", "write a report with plots to this file, which needs no other")
	f.StringVar(&o.plots, "plots", "", "write the plots into this directory, as PNG")
	f.StringVar(&o.figure, "figure", "", "write the figure of docs/performance.md to this file, as SVG")
	f.StringVar(&o.report, "markdown", "", "write the tables to this file")
	c.AddCommand(serveCommand())
	return c
}

// quickRows are rows of every kind.
const quickRows = `^(randread/psync/2|randwrite/io_uring/1|mixed/psync/4|seqread/psync/1|seqwrite/mmap/1)$|^(meta|tree|load|extents)/`

// quick lessens what the command line does not say.
func quick(c *cobra.Command) {
	for name, v := range map[string]string{
		"rows": quickRows, "rounds": "1", "runtime": "200ms", "size": "4194304", "files": "1000", "extents-size": "67108864",
	} {
		if f := c.Flags().Lookup(name); !f.Changed {
			_ = f.Value.Set(v)
		}
	}
}
