package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// Exit codes of fsck are bits, as in fsck(8). Its 2 (reboot) and 128 (shared library error) are not
// used.
const (
	fsckClean       = 0
	fsckCorrected   = 1
	fsckLeft        = 4
	fsckOperational = 8
	fsckUsage       = 16
	fsckCancelled   = 32
)

type fsckFlags struct{ no, yes, json, takeover bool }

func fsckCommand() *cobra.Command {
	var f fsckFlags
	c := &cobra.Command{
		Use:   "fsck [-n | -y] [--json] [--takeover] REGION",
		Short: "Check a daxfsd, and repair it",
		Long: `Check the daxfsd on a region that is not mounted.

-y repairs everything that can be repaired. -n changes nothing: it makes the same
repairs in memory only, and lists and counts what -y would find and repair. Without
-n or -y, fsck asks before it repairs, if it runs on a terminal.

A region whose files' memory programs still map (` + "`daxfsd leases`" + `) is checked, but not
repaired: a repair could give that memory to other files.

A region that is in use is refused, whatever device node or container its user opened
it through. If it is unclear whether the region is in use (another host mounted it
last, and shows no sign of life), fsck checks it, but repairs it only with
--takeover.

A filesystem whose daemon was killed is not damaged: the next mount recovers it, and
fsck takes its journal into account.

A file with data in memory that is known to be bad has lost that data. Each such
range is an error (lost-data) that names the file and the bytes. It cannot be
repaired; overwrite these bytes or remove the file, and the error is gone.

Exit codes, as in fsck(8): 0 clean, 1 errors corrected, 4 errors left uncorrected,
8 operational error, 16 wrong usage, 32 cancelled by a signal; if several apply, their
sum. With -n all errors found count as left. After a cancelled repair, run fsck again:
it completes the rest.

--json prints one object. "problems" lists what was found: "code", "what", "ino",
"path", "offset" (bytes), "fixed" or "fixable", and for lost data "file_offset" and
"bytes". "repaired", "left" and "fixable" count problems: repaired, left, and those
left that -y can repair. The other fields describe the filesystem as it is after the
repair; with -n, as it would be.`,
		Example: `  daxfsd fsck -n /var/lib/pool.dax
  daxfsd fsck -y --json /dev/dax0.0`,
		Args: args("REGION"),
		RunE: func(c *cobra.Command, a []string) error { return runFsck(c, &f, a[0]) },
	}
	c.Flags().BoolVarP(&f.no, "no", "n", false, "change nothing")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "repair everything that can be repaired")
	c.Flags().BoolVar(&f.json, "json", false, "print the report as JSON")
	c.Flags().BoolVar(&f.takeover, "takeover", false, "repair even if another host may be using the region")
	return c
}

// fsckExit returns the exit code for an error of the fsck command.
func fsckExit(err error) int {
	var e *exitError
	switch {
	case !errors.As(err, &e):
		return fsckOperational
	case e.code == 2:
		return fsckUsage
	}
	return e.code
}

func runFsck(c *cobra.Command, f *fsckFlags, arg string) error {
	if f.no && f.yes {
		return usagef("-n and -y exclude each other")
	}
	path, err := regionPath(arg)
	if err != nil {
		return err
	}
	defer cancelled(path)()
	rep, err := checkRegion(c, f, path, f.yes)
	if err != nil {
		return err
	}
	code := rep.ExitCode()
	if rep.Fixable > 0 && !f.no && !f.yes && !f.json && isTerminal(os.Stdin) && isTerminal(os.Stdout) {
		fmt.Fprintf(c.OutOrStdout(), "Repair? [y/N] ")
		answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
			if rep, err = checkRegion(c, f, path, true); err != nil {
				return err
			}
			code = rep.ExitCode()
		}
	}
	if code != fsckClean {
		return &exitError{code: code}
	}
	return nil
}

// cancelled ends the process at a signal, until the returned function is called. A repair consists
// of transactions, so it can be interrupted anywhere.
func cancelled(path string) func() {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-sig; ok {
			fmt.Fprintf(os.Stderr, "daxfsd: fsck: cancelled; region %s was not checked to the end\n", quoted(path))
			os.Exit(fsckCancelled)
		}
	}()
	return func() {
		signal.Stop(sig)
		close(sig)
	}
}

// checkRegion runs the check once and prints what it found.
func checkRegion(c *cobra.Command, f *fsckFlags, path string, repair bool) (*fsck.Report, error) {
	r, err := openRegion(path, pmem.Options{ReadOnly: !repair})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if repair {
		if err := unmapped(path, r, "repairing it", fmt.Sprintf(", or mount it as it is (a mount keeps what they map), or check it with `daxfsd fsck -n %s`", path)); err != nil {
			return nil, err
		}
	}
	p := newProgress(os.Stderr)
	defer p.end()
	o := fsck.Options{Repair: repair, Takeover: f.takeover, BeatInterval: owner.Interval, Progress: p.update}
	if !f.json {
		o.Found = func(pr fsck.Problem) { p.end(); fmt.Fprintln(c.OutOrStdout(), visible(pr.String())) }
	}
	rep, err := fsck.Check(r, o)
	if err != nil {
		return nil, superError(path, r, err)
	}
	p.end()
	if repair {
		if err := r.Sync(0, r.Size()); err != nil {
			return nil, fmt.Errorf("region %s: writing back: %w", path, err)
		}
	}
	if f.json {
		_ = json.NewEncoder(c.OutOrStdout()).Encode(rep)
		return rep, nil
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %s\n", quoted(path), fsckSummary(rep))
	return rep, nil
}

// fsckSummary returns the last line that fsck prints.
func fsckSummary(r *fsck.Report) string {
	var s strings.Builder
	mended, left, verb := r.Repaired, r.Left-r.Fixable, "repaired"
	if r.Fixable > 0 {
		mended, verb = r.Fixable, "would be repaired"
	}
	switch {
	case left > 0 && mended > 0:
		fmt.Fprintf(&s, "%s %s, %d LEFT", problems(mended), verb, left)
	case left > 0:
		fmt.Fprintf(&s, "%s found", problems(left))
	case mended > 0:
		fmt.Fprintf(&s, "%s %s", problems(mended), verb)
	default:
		s.WriteString("clean")
	}
	fmt.Fprintf(&s, "; %d inodes: %d files, %d directories, %d symbolic links, %d others; %s used, %s free",
		r.Files+r.Dirs+r.Symlinks+r.Special, r.Files, r.Dirs, r.Symlinks, r.Special, formatBlocks(r.UsedBlocks), formatBlocks(r.FreeBlocks))
	if r.Incomplete {
		s.WriteString("; some inodes or directories cannot be read, so what they lead to was not checked")
	}
	if !r.Clean {
		fmt.Fprintf(&s, "; it was not unmounted (%d journal records, %d orphans, %d interrupted truncations)",
			r.JournalRecords, r.Orphans, r.Truncations)
	}
	return s.String()
}

func problems(n int) string {
	if n == 1 {
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", n)
}
