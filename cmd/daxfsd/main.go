package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// exitError carries an exit code other than 1. If err is nil, the command has already printed its
// messages.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef returns an error of the command line, with exit code 2.
func usagef(format string, a ...any) error { return &exitError{2, fmt.Errorf(format, a...)} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "daxfsd",
		Short: "A userspace DAX filesystem on persistent memory",
		Long: `daxfsd serves a persistent-memory region as a POSIX filesystem.

A region is a device-dax device (/dev/dax0.0), a file on a DAX mount, or any
ordinary file, which then emulates persistent memory.`,
		Example: `  daxfsd mkfs --size 4GiB /var/lib/pool.dax   create a region in a file, format it
  daxfsd mount /var/lib/pool.dax /mnt         mount it; returns when it is usable
  daxfsd info /mnt                            describe it; show how full it is
  daxfsd top /mnt                             watch the requests it serves, live
  daxfsd leases /mnt                          list which programs map files' memory
  daxfsd filefrag /mnt/f                      list the extents of a file
  daxfsd align /mnt/f                         lay it out for mapping in large pages
  daxfsd umount /mnt                          unmount it; returns when the region is free
  daxfsd fsck /var/lib/pool.dax               check it, while unmounted`,
		Version:       versionString(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate(versionReport())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{2, err} })
	root.SetHelpCommand(helpCommand())
	root.AddCommand(mkfsCommand(), mountCommand(), umountCommand(), fsckCommand(), infoCommand(), leasesCommand(), topCommand(), filefragCommand(), alignCommand(), runCommand(), &cobra.Command{
		Use: "version", Short: "Print the versions of program, format and protocols", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprint(c.OutOrStdout(), versionReport())
		},
	})
	return root
}

// args returns a check that accepts exactly the named arguments.
func args(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if err := noneEmpty(got, names...); err != nil {
			return err
		}
		if len(got) == len(names) {
			return nil
		}
		return usagef("expected %s, got %d argument(s); see `%s --help`", strings.Join(names, " and "), len(got), c.CommandPath())
	}
}

// noneEmpty refuses an empty argument, because the functions of path/filepath take it for the
// current directory.
func noneEmpty(got []string, names ...string) error {
	if i := slices.Index(got, ""); i >= 0 {
		return usagef("argument %d is empty; expected %s", i+1, strings.Join(names, " and "))
	}
	return nil
}

// run executes the command line and returns the exit code. A command whose output could not be
// written fails.
func run(root *cobra.Command, stdout *os.File) int {
	out := &output{f: stdout}
	root.SetOut(out)
	cmd, err := root.ExecuteC()
	code := exitCode(root, cmd, err)
	if failed := out.close(); failed != nil && (err == nil || err.Error() == "" || errors.Is(err, failed)) {
		err = fmt.Errorf("writing to standard output: %w", failed)
		if cmd.Name() == "fsck" {
			code |= fsckOperational
		} else {
			code = 1
		}
	}
	if err != nil && err.Error() != "" {
		name := "daxfsd"
		if cmd != root {
			name += ": " + cmd.Name()
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, oneSentence(err))
	}
	return code
}

// exitCode returns the exit code for the error of a command.
func exitCode(root, cmd *cobra.Command, err error) int {
	var e *exitError
	switch {
	case err == nil:
		return 0
	case cmd.Name() == "fsck":
		return fsckExit(err)
	case errors.As(err, &e):
		return e.code
	case cmd == root:
		return 2 // unknown command
	}
	return 1
}

// oneSentence puts an error on one line and escapes invisible characters.
func oneSentence(err error) string {
	return visible(strings.Join(strings.Fields(err.Error()), " "))
}

func main() {
	if os.Args[0] == probeName {
		runProbe(os.Args[1:])
		return
	}
	root := newRoot()
	args, helper := helperArgs(os.Args)
	if helper {
		if args == nil {
			return
		}
		root.SetArgs(args)
	}
	code := run(root, os.Stdout)
	if helper {
		code = helperExit(code)
	}
	os.Exit(code)
}
