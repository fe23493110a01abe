package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type mountFlags struct {
	options       []string
	foreground    bool
	formatIfEmpty bool
	size          sizeFlag
	log           string
}

func mountCommand() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use:   "mount [flags] REGION MOUNTPOINT",
		Short: "Mount a daxfsd",
		Long: `Mount the daxfsd on REGION at the directory MOUNTPOINT. The command returns when
the filesystem is usable; a daemon serves it until it is unmounted. A filesystem
that was not unmounted cleanly is recovered first.

Options for -o:
  ro, rw              read-only, or read-write (default)
  dax=always          reads and writes access the region directly (default)
  dax=never           the kernel caches file data
  dax=inode           dax=always for files that have the flag set by chattr +x,
                      dax=never for the others
  direct=rw           programs that may open the region may map files' own memory, to
                      read and to write (default; with atomic to read only, and not
                      with ro or dax=never)
  direct=ro           to read only
  direct=off          not at all
  transport=auto      receive requests over io_uring if the machine supports it,
                      otherwise over /dev/fuse (default)
  transport=uring     over io_uring; needs Linux 6.14 and
                      echo Y > /sys/module/fuse/parameters/enable_uring
  transport=dev       over /dev/fuse
  nopoll              sleep right after each request. By default the daemon waits
                      awake for 200 µs, on CPUs that are otherwise idle, to answer
                      the next request sooner. nopoll saves power, and CPU time
                      where that is limited
  atomic              after a crash each write request, of up to 1 MiB, is complete
                      or absent; overwriting stores the data twice
  trace               write a line to the log (--log) for each request: operation,
                      result, time
  takeover            mount even if the region is marked as in use by another host
  allow_other         let other users access the filesystem; always on for a mount
                      by root
  relatime, strictatime, noatime
                      when a read updates the access time: if it is not later than
                      the last change or is a day old (default), always, never
  nodiratime          never update the access times of directories
  remount             change ro, rw, nosuid, nodev, noexec, suid, dev or exec of a
                      mount; one that was mounted with ro cannot become rw
  nosuid, nodev, noexec, suid, dev, exec, nosymfollow, sync, dirsync
                      as for any filesystem. nosuid and nodev are the default for a
                      mount by a user, and for a region that anyone but root can
                      write to. A region in a file takes over nosuid, nodev and
                      noexec from the filesystem that the file is on

A mount by root needs nothing else; a mount by a user needs fusermount3 (package
fuse3).

SIGTERM and SIGINT unmount, even if the mount has been moved. A mount in use is
detached from the tree, and the daemon exits with its last user. The daemon never
unmounts what others have mounted on it: it waits until that is unmounted. A second
signal ends the daemon at once.

A crash of the daemon is reported in the log. Without a log the report is a file
crash-*.log in /run/daxfsd for root, in $XDG_RUNTIME_DIR/daxfsd for a user.`,
		Example: `  daxfsd mount /var/lib/pool.dax /mnt
  daxfsd mount -o ro,noexec /dev/dax0.0 /srv/data
  daxfsd mount --format-if-empty --size 4GiB /var/lib/pool.dax /mnt
  daxfsd mount --foreground --log - /var/lib/pool.dax /mnt`,
		Args: args("REGION", "MOUNTPOINT"),
		RunE: func(c *cobra.Command, a []string) error { return mount(c, &f, a[0], a[1]) },
	}
	c.Flags().StringArrayVarP(&f.options, "options", "o", nil, "mount options, separated by commas")
	c.Flags().BoolVar(&f.foreground, "foreground", false, "do not go into the background; log to standard error")
	c.Flags().BoolVar(&f.formatIfEmpty, "format-if-empty", false, "format the region first if it does not exist, has length zero, or is all zeros")
	c.Flags().Var(&f.size, "size", "size of the filesystem that --format-if-empty makes")
	c.Flags().StringVar(&f.log, "log", "", "log to this file; - is standard error")
	return c
}

// mountPlan is a mount whose arguments have been checked.
type mountPlan struct {
	flags      *mountFlags
	region     string
	mountpoint string
	dir        int // O_PATH descriptor of the mount point, until the daxfsd is mounted there
	opts       *mountOptions
}

func mount(c *cobra.Command, f *mountFlags, region, mountpoint string) error {
	opts, err := parseOptions(f.options)
	if err != nil {
		return err
	}
	if opts.remount {
		return remount(opts, mountpoint)
	}
	if f.size != 0 && !f.formatIfEmpty {
		return usagef("--size needs --format-if-empty; an existing filesystem keeps its size")
	}
	if f.formatIfEmpty && opts.readOnly {
		return usagef("--format-if-empty writes to the region, and -o ro forbids that; drop one of them")
	}
	p := &mountPlan{flags: f, opts: opts}
	if opts.trace && f.log == "" && !f.foreground {
		return usagef("-o trace writes to the log, and there is none; name a log file with --log")
	}
	if p.region, err = regionPath(region); err != nil {
		return err
	}
	if rep := reporterFromEnv(); rep != nil {
		return daemon(p, mountpoint, rep)
	}
	if err := p.check(mountpoint, func(s string) { fmt.Fprintf(os.Stderr, "daxfsd: mount: %s\n", visible(s)) }); err != nil {
		return err
	}
	if f.foreground {
		return serveMount(p, &reporter{})
	}
	unix.Close(p.dir) // the daemon opens it itself
	return spawn(p)
}

// check completes the plan with a mount point that can be mounted on.
func (p *mountPlan) check(mountpoint string, tell func(string)) (err error) {
	if p.mountpoint, p.dir, err = checkMountpoint(mountpoint, tell); err != nil {
		return err
	}
	if p.mountpoint == "/" {
		return usagef("a daxfsd cannot be mounted on /")
	}
	return nil
}

// daemon is mount in the process that spawn started: it reports errors to the starter.
func daemon(p *mountPlan, mountpoint string, rep *reporter) error {
	err := p.check(mountpoint, func(s string) { rep.send(reportLine{Kind: "note", Text: s}) })
	// The starter has resolved the mount point. If it leads elsewhere now, a symbolic link was put
	// there since.
	if err == nil && p.mountpoint != mountpoint {
		unix.Close(p.dir)
		err = fmt.Errorf("mount point %s now leads to %s: it was changed meanwhile; mount again", mountpoint, p.mountpoint)
	}
	if err == nil {
		err = serveMount(p, rep)
	}
	if err != nil {
		rep.send(reportLine{Kind: "error", Text: oneSentence(err)})
		return &exitError{code: 1}
	}
	return nil
}

// reporterFromEnv returns the reporter of a process that spawn started, nil in any other process.
func reporterFromEnv() *reporter {
	fd, err := strconv.Atoi(os.Getenv(reportEnv))
	if err != nil {
		return nil
	}
	os.Unsetenv(reportEnv)
	syscall.CloseOnExec(fd)
	return &reporter{w: os.NewFile(uintptr(fd), "report")}
}

// spawn starts this program again as a daemon, in a session of its own, and waits until the daemon
// has mounted or failed.
func spawn(plan *mountPlan) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"mount"}
	for _, option := range plan.flags.options {
		args = append(args, "-o", option)
	}
	if plan.flags.formatIfEmpty {
		args = append(args, "--format-if-empty")
	}
	if plan.flags.size != 0 {
		args = append(args, "--size", strconv.FormatInt(int64(plan.flags.size), 10))
	}
	cmd := exec.Command(exe)
	switch log := plan.flags.log; log {
	case "": // all standard streams are /dev/null
	case "-":
		args = append(args, "--log", log)
		cmd.Stderr = os.Stderr
	default:
		if log, err = filepath.Abs(log); err != nil {
			return err
		}
		args = append(args, "--log", log)
	}
	cmd.Args = append(append([]string{"daxfsd"}, args...), "--", plan.region, plan.mountpoint)
	cmd.Env = append(os.Environ(), reportEnv+"=3")
	cmd.ExtraFiles = []*os.File{writer}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	keepFromChildren()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	writer.Close()
	// A signal to this process is meant for the daemon as well.
	var interrupted atomic.Bool
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for range sig {
			interrupted.Store(true)
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}()
	bar := newProgress(os.Stderr)
	defer bar.end()
	err = listen(reader, func(line reportLine) {
		switch line.Kind {
		case "progress":
			bar.update(line.Text, line.Done, line.Total)
		case "note":
			bar.end()
			fmt.Fprintf(os.Stderr, "daxfsd: mount: %s\n", visible(line.Text))
		}
	})
	if err == nil && interrupted.Load() {
		err = errors.New("interrupted")
	}
	if err != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		return err
	}
	enterUtab(plan.region, plan.mountpoint)
	return cmd.Process.Release()
}
