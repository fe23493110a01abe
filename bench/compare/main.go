// Command compare measures daxfsd side by side with other filesystems, in one run and interleaved
// round by round. The contenders are daxfsd over each transport and in each cache mode, the
// kernel's tmpfs (4 KiB pages), ext4, go-fuse's loopback over tmpfs, and the null bound: the same
// transport answering from a slice, with no filesystem behind it.
//
//	go run ./bench/compare --quick
//	go run ./bench/compare --json r.json --html r.html --plots plots --markdown r.md --check
//
// A contender is a filesystem that is measured; a target is a figure that the project demands of
// daxfsd.
//
// The command owns the processes that serve, their mounts, their memory, and the tables made from
// the reports of fio and of the metadata benchmark. It never accesses a mount from the process that
// serves it.
//
// supervise.go starts the measurement in a mount namespace of its own and cleans up after it.
// contender.go describes the contenders; loopback.go, null.go and daxfsd serve them. fio.go,
// metadata.go, tree.go, extents.go, fairness.go, direct.go and inodes.go measure. result.go keeps
// the samples, targets.go judges them, and table.go, html.go and plot.go show them.
package main

import (
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"
)

// config holds the values of the command line.
type config struct {
	Rounds      int           `json:"rounds"`
	Runtime     time.Duration `json:"runtime_ns"`   // time of one run of fio
	Size        int64         `json:"size"`         // bytes of one data file
	Files       int           `json:"files"`        // number of files of the metadata benchmark
	Extents     int64         `json:"extents_size"` // bytes of one file of extents/*
	Mapped      int64         `json:"mapped_size"`  // bytes of the file of direct/*
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
	var conf config
	var rows, contenders string
	c := &cobra.Command{
		Use:   "compare [flags]",
		Short: "Measure daxfsd beside tmpfs, ext4, go-fuse's loopback and the null bound",
		Long: `Measure daxfsd beside the filesystems that it has to be compared with. Every round measures every
row on every filesystem, one after the other, so that other load on the machine affects all of them
alike. The report shows the medians over the rounds, and their ratios within this run. compare runs
as root, in a mount namespace of its own, and removes everything it made, even when interrupted.

Filesystems:
  daxfsd-dev, daxfsd-uring  daxfsd with dax=always (the kernel caches no file data), with requests
                            over /dev/fuse or over io_uring
  daxfsd-*-cached           the same with dax=never: the kernel caches file data
  tmpfs                     the kernel's, with 4 KiB pages
  ext4                      buffered; in --dir itself if that is on ext4, otherwise in an image there
  loopback                  go-fuse's fs package over tmpfs, tuned, caching as little as daxfsd-*
  loopback-cached           the same with the kernel's cache, like daxfsd-*-cached
  passthrough               the same, but the kernel itself reads and writes the file of tmpfs
  null-dev, null-uring      daxfsd's transports; READ is answered from a slice, WRITE copied into it
  direct                    direct/* only: the Go package direct, on the daxfsd above
  memory                    direct/* only, the limit: a copy, or a non-temporal store and a fence, in
                            the memory of the same file

Rows:
  PATTERN/ENGINE/JOBS       fio: randread, randwrite, mixed (4 KiB), seqread, seqwrite (1 MiB);
                            psync, io_uring (32 in flight), mmap; 1, 2, 4 processes; see bench/jobs
  meta/...                  create, stat-created, readdir, stat-listed, stat-cold (after a mount),
                            rename, unlink
  tree/...                  untar, git-status and rm of a source tree
  load/fairness             64 clients with 1000 open files
  extents/one, extents/many 4 KiB random reads of a file of one extent, and of 100 000 extents
  direct/...                from Go, in one thread: 4 KiB random, 1 MiB sequential; touch: map a file
                            and load a byte of each page; map: what a mapping costs before that, of
                            an aligned file, of one of 1000 extents, and beside 2000 leases
  bigdir/..., inodes/...    with --full: creates in a directory of a million files; a million cached
                            inodes

A target is a figure that the project demands of daxfsd. The report shows each target as met or
missed, or as not measured if its rows were not selected. On a busy machine the figures mean
nothing. Five rounds of everything take two hours; the rows of the targets alone take a quarter of
that.`,
		Example: `  compare --quick
  compare --rows '^(randread|randwrite)/psync/2$' --rounds 7
  compare --rows '^direct/' --region-huge always
  compare --targets --full --check --json r.json --markdown r.md`,
		Args:         cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		PreRun: func(c *cobra.Command, _ []string) {
			if conf.Quick {
				quick(c)
			}
		},
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if conf.Rounds < 1 || conf.Size < 1<<20 || conf.Files < 1 || conf.Mapped < 8<<20 {
				return fmt.Errorf("--rounds and --files are at least 1, --size at least 1 MiB, --mapped-size at least 8 MiB")
			}
			if conf.rows, err = regexp.Compile(rows); err != nil {
				return fmt.Errorf("--rows: %w", err)
			}
			if conf.contenders, err = regexp.Compile(contenders); err != nil {
				return fmt.Errorf("--filesystems: %w", err)
			}
			if os.Getenv(dirEnv) == "" {
				return supervise(&conf)
			}
			return run(c.Context(), &conf)
		},
	}
	flags := c.Flags()
	flags.IntVar(&conf.Rounds, "rounds", 5, "number of rounds; the medians are shown")
	flags.DurationVar(&conf.Runtime, "runtime", 2*time.Second, "time of each run of fio")
	flags.StringVar(&rows, "rows", "", "measure only the rows that match this regular expression")
	flags.StringVar(&contenders, "filesystems", "", "measure only the filesystems that match this regular expression")
	flags.BoolVar(&conf.TargetsOnly, "targets", false, "measure only the rows that targets are set for")
	flags.Int64Var(&conf.Size, "size", 128<<20, "bytes of each of the four data files")
	flags.IntVar(&conf.Files, "files", 100_000, "number of files of the metadata benchmark")
	flags.Int64Var(&conf.Extents, "extents-size", 4<<30, "bytes of each of the two files of the extents rows")
	flags.Int64Var(&conf.Mapped, "mapped-size", 1<<30, "bytes of the file of the direct rows")
	flags.StringVar(&conf.Tree, "tree", "", "source tree to unpack (default: the Go toolchain's own source)")
	flags.StringVar(&conf.Huge, "region-huge", "never", "large pages of the tmpfs that the regions are on: never, always, within_size, advise")
	flags.StringVar(&conf.dir, "dir", "/var/tmp", "directory for temporary files, best on ext4")
	flags.BoolVar(&conf.Full, "full", false, "also measure a directory of a million files and a million cached inodes; takes long, and drops the machine's dentry and inode caches once")
	flags.BoolVar(&conf.Quick, "quick", false, "run everything for a minute, to see that it works; the figures mean nothing")
	flags.BoolVar(&conf.check, "check", false, "exit with 1 if a target is missed or was not measured")
	flags.StringVar(&conf.json, "json", "", "write every sample to this file")
	flags.StringVar(&conf.html, "html", "", "write a self-contained report with plots to this file")
	flags.StringVar(&conf.plots, "plots", "", "write the plots into this directory, as PNG")
	flags.StringVar(&conf.figure, "figure", "", "write the figure of docs/performance.md to this file, as SVG")
	flags.StringVar(&conf.report, "markdown", "", "write the tables to this file")
	c.AddCommand(serveCommand())
	return c
}

// quickRows selects rows of every kind.
const quickRows = `^(randread/psync/2|randwrite/io_uring/1|mixed/psync/4|seqread/psync/1|seqwrite/mmap/1)$|^(meta|tree|load|extents|direct)/`

// quick sets small values for the flags that the command line does not set.
func quick(c *cobra.Command) {
	for name, v := range map[string]string{
		"rows": quickRows, "rounds": "1", "runtime": "200ms", "size": "4194304", "files": "1000", "extents-size": "67108864", "mapped-size": "16777216",
	} {
		if f := c.Flags().Lookup(name); !f.Changed {
			_ = f.Value.Set(v)
		}
	}
}
