package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/fs/fsck"
	"github.com/daxfs/daxfs/fs/fusefs"
	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/pmem"
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
		Short: "Mount a daxfs",
		Long: `Mount the daxfs on REGION at the directory MOUNTPOINT. The command returns when
the filesystem is usable; a daemon goes on serving it until it is unmounted. A
filesystem that was not unmounted is recovered first.

Options for -o:
  ro, rw              read-only or not
  dax=always          read and write go straight to the region (default)
  dax=never           file data is cached by the kernel
  takeover            mount although the region is marked as in use by another host
  allow_other         let other users in; always so for a mount by root
  noatime, nosuid, nodev, noexec, suid, dev, exec
                      as for any filesystem; a region that others than root can
                      write to, and a mount by a user, is nosuid,nodev

As root nothing else is needed; as a user, fusermount3 (package fuse3).

SIGTERM and SIGINT unmount. If the mount is in use it leaves the tree and ends
with its last user; a second signal ends the daemon at once.`,
		Example: `  daxfsd mount /var/lib/pool.dax /mnt
  daxfsd mount -o ro,noexec /dev/dax0.0 /srv/data
  daxfsd mount --format-if-empty --size 4GiB /var/lib/pool.dax /mnt
  daxfsd mount --foreground --log - /var/lib/pool.dax /mnt`,
		Args: args("REGION", "MOUNTPOINT"),
		RunE: func(c *cobra.Command, a []string) error { return mount(c, &f, a[0], a[1]) },
	}
	c.Flags().StringArrayVarP(&f.options, "options", "o", nil, "mount options, separated by commas")
	c.Flags().BoolVar(&f.foreground, "foreground", false, "do not go into the background; log to standard error")
	c.Flags().BoolVar(&f.formatIfEmpty, "format-if-empty", false, "format a region that is absent, of length zero, or all zeros")
	c.Flags().Var(&f.size, "size", "size for --format-if-empty to make")
	c.Flags().StringVar(&f.log, "log", "", "log to this file; - is standard error")
	return c
}

// mountPlan is a mount whose arguments have been checked.
type mountPlan struct {
	flags      *mountFlags
	region     string
	mountpoint string
	opts       *mountOptions
}

func mount(c *cobra.Command, f *mountFlags, region, mountpoint string) error {
	opts, err := parseOptions(f.options)
	if err != nil {
		return err
	}
	if f.size != 0 && !f.formatIfEmpty {
		return usagef("--size goes with --format-if-empty; an existing filesystem keeps its size")
	}
	if f.formatIfEmpty && opts.readOnly {
		return usagef("--format-if-empty writes and -o ro does not")
	}
	p := &mountPlan{flags: f, opts: opts}
	if p.region, err = regionPath(region); err != nil {
		return err
	}
	if rep := reporterFromEnv(); rep != nil {
		return daemon(p, mountpoint, rep)
	}
	if err := p.check(mountpoint, func(s string) { fmt.Fprintf(os.Stderr, "daxfsd: mount: %s\n", s) }); err != nil {
		return err
	}
	if f.foreground {
		return serveMount(p, &reporter{})
	}
	return spawn(p)
}

// check completes the plan with a mount point that can be mounted on.
func (p *mountPlan) check(mountpoint string, tell func(string)) (err error) {
	if p.mountpoint, err = checkMountpoint(mountpoint, tell); err != nil {
		return err
	}
	if p.mountpoint == "/" {
		return usagef("a daxfs cannot be mounted on /")
	}
	return nil
}

// daemon is mount in the process that spawn started: errors go to the starter.
func daemon(p *mountPlan, mountpoint string, rep *reporter) error {
	err := p.check(mountpoint, func(s string) { rep.send(reportLine{Kind: "note", Text: s}) })
	if err == nil {
		err = serveMount(p, rep)
	}
	if err != nil {
		rep.send(reportLine{Kind: "error", Text: oneSentence(err)})
		return &exitError{code: 1}
	}
	return nil
}

// reporterFromEnv is how a daemon knows that it is one; nil if we are not.
func reporterFromEnv() *reporter {
	fd, err := strconv.Atoi(os.Getenv(reportEnv))
	if err != nil {
		return nil
	}
	os.Unsetenv(reportEnv)
	syscall.CloseOnExec(fd)
	return &reporter{w: os.NewFile(uintptr(fd), "report")}
}

// spawn starts this program again as a daemon, in a session of its own, and waits
// until it has mounted or failed.
func spawn(p *mountPlan) error {
	rd, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer rd.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"mount"}
	for _, o := range p.flags.options {
		args = append(args, "-o", o)
	}
	if p.flags.formatIfEmpty {
		args = append(args, "--format-if-empty")
	}
	if p.flags.size != 0 {
		args = append(args, "--size", strconv.FormatInt(int64(p.flags.size), 10))
	}
	cmd := exec.Command(exe)
	switch l := p.flags.log; l {
	case "": // all standard streams are /dev/null
	case "-":
		args = append(args, "--log", l)
		cmd.Stderr = os.Stderr
	default:
		if l, err = filepath.Abs(l); err != nil {
			return err
		}
		args = append(args, "--log", l)
	}
	cmd.Args = append(append([]string{"daxfsd"}, args...), "--", p.region, p.mountpoint)
	cmd.Env = append(os.Environ(), reportEnv+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	w.Close()
	// Who interrupts us means the daemon, too.
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
	err = listen(rd, func(l reportLine) {
		switch l.Kind {
		case "progress":
			bar.update(l.Text, l.Done, l.Total)
		case "note":
			bar.end()
			fmt.Fprintf(os.Stderr, "daxfsd: mount: %s\n", l.Text)
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
	return cmd.Process.Release()
}

// syncInterval is how often a region in an ordinary file is written back against
// a crash of the host.
const syncInterval = 30 * time.Second

// serveMount mounts and serves until unmounted: the daemon's whole life.
func serveMount(p *mountPlan, rep *reporter) error {
	logPath := p.flags.log
	if logPath == "-" {
		logPath = ""
	}
	log, err := newLogger(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	log = log.With(zap.String("region", p.region), zap.String("mountpoint", p.mountpoint))
	warn := func(s string) { log.Warn(s); rep.send(reportLine{Kind: "note", Text: s}) }

	// From here on a signal must not end us half-way.
	sig := make(chan os.Signal, 4)
	signal.Notify(sig, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)

	bar := newProgress(os.Stderr)
	if rep.w != nil {
		bar.out = nil
	}
	defer bar.end()
	progress := throttled(func(stage string, done, total int64) {
		bar.update(stage, done, total)
		rep.send(reportLine{Kind: "progress", Text: stage, Done: done, Total: total})
	})

	r, sb, err := openForMount(p, progress, warn)
	if err != nil {
		return err
	}
	defer r.Close()
	p.opts.finish(os.Geteuid() == 0, trusted(p.region))

	since := time.Now()
	var core *fs.FS
	conn, err := fusefs.Attach(fusefs.Options{
		Mountpoint: p.mountpoint, Source: p.region, DAX: p.opts.dax, Kernel: p.opts.kernel,
		Info: func() []byte { return mountFacts(p, r, sb, core, since) },
		Log:  zap.NewStdLog(log.Named("fuse")),
		Panicked: func(v any) {
			log.Fatal("panic: ending the daemon, the next mount recovers", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
		},
	})
	if err != nil {
		return err
	}
	core, err = mountCore(r, sb, fs.Options{
		ReadOnly: p.opts.readOnly, Takeover: p.opts.takeover, Progress: progress, Warn: warn, SyncInterval: syncInterval,
	})
	if err != nil {
		conn.Close()
		return fmt.Errorf("region %s: %w", p.region, err)
	}
	server, err := conn.Start(core)
	if err != nil {
		return errors.Join(err, core.Unmount())
	}
	bar.end()
	if !server.SharedMmap() {
		warn("this kernel maps files shared only with -o dax=never (Linux 6.6 lifts that)")
	}
	s := core.Stats()
	log.Info("mounted", zap.String("version", versionString()), zap.String("kind", r.Kind().String()),
		zap.Strings("options", p.opts.list()), zap.Int("replayed_records", s.ReplayedRecords), zap.Int("freed_orphans", s.FreedOrphans))
	done := make(chan struct{})
	go handleSignals(sig, done, server, log, p.flags.foreground)
	rep.send(reportLine{Kind: "ready"})
	notifySystemd("READY=1")

	server.Serve()
	close(done)
	notifySystemd("STOPPING=1")
	if err := core.Unmount(); err != nil {
		log.Error("the filesystem could not be made clean; the next mount recovers", zap.Error(err))
		return fmt.Errorf("region %s: making it clean: %w", p.region, err)
	}
	log.Info("unmounted")
	return nil
}

// mountCore is fs.Mount, with patience for a predecessor that is just dying: a
// killed process gives up its files, and with them the lock, before it is gone. A
// zombie that nobody reaps uses nothing any more.
func mountCore(r *pmem.Region, sb *layout.Superblock, o fs.Options) (core *fs.FS, err error) {
	for deadline := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		if core, err = fs.Mount(r, o); !errors.Is(err, fs.ErrInUse) || time.Now().After(deadline) {
			return core, err
		}
		w, ok, rerr := fs.ReadOwner(r, sb)
		machine, boot := pmem.HostIdentity()
		if ok && rerr == nil && w.Machine == machine && w.Boot == boot && zombie(int(w.PID)) {
			o.Takeover = true
		}
	}
}

// zombie reports whether a process has ended and waits to be reaped.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
	return err == nil && ok && len(state) > 0 && (state[0] == 'Z' || state[0] == 'X')
}

// handleSignals unmounts at SIGTERM and SIGINT: at once if nobody uses the mount,
// otherwise when its last user goes. A second signal ends the daemon as it is;
// recovery makes that safe. A terminal that hangs up means the foreground only.
func handleSignals(sig <-chan os.Signal, done <-chan struct{}, server *fusefs.Server, log *zap.Logger, foreground bool) {
	asked := false
	for {
		select {
		case <-done:
			return
		case s := <-sig:
			if s == syscall.SIGHUP && !foreground {
				continue
			}
			if asked {
				log.Warn("second signal: ending at once, the next mount recovers")
				_ = log.Sync()
				os.Exit(1)
			}
			err := server.Unmount(fusefs.Plain)
			if errors.Is(err, fusefs.ErrBusy) {
				log.Warn("the mount is in use: taken out of the tree, ending with its last user; signal again to end now")
				err = server.Unmount(fusefs.Lazy)
			}
			if err != nil {
				log.Error("unmounting failed", zap.Error(err))
				continue
			}
			asked = true
		}
	}
}

// openForMount opens the region, formats it if it is empty and that was asked for,
// and makes sure that it can be mounted. After an error it is as it was.
func openForMount(p *mountPlan, progress progressFunc, warn func(string)) (*pmem.Region, *layout.Superblock, error) {
	r, err := openOrFormat(p, progress, warn)
	if err != nil {
		return nil, nil, err
	}
	sb, _, err := fs.ReadSuper(r)
	if err != nil {
		err = superError(p.region, r, err)
		r.Close()
		return nil, nil, err
	}
	if !p.opts.readOnly && uncleanHostStop(r, sb) {
		warn("the host went down while this emulated region was mounted: checking it first")
		rep, err := fsck.Check(r, fsck.Options{Progress: progress})
		if err == nil && rep.ExitCode() != 0 {
			err = fmt.Errorf("region %s was damaged when the host went down (%d problems, the first: %s); `daxfsd fsck -y %s` repairs it",
				p.region, len(rep.Problems), rep.Problems[0].What, p.region)
		}
		if err != nil {
			r.Close()
			return nil, nil, err
		}
		warn("the check found no damage")
	}
	return r, sb, nil
}

func openOrFormat(p *mountPlan, progress progressFunc, warn func(string)) (*pmem.Region, error) {
	st, err := os.Stat(p.region)
	empty := errors.Is(err, os.ErrNotExist) || err == nil && st.Mode().IsRegular() && st.Size() == 0
	if !empty || !p.flags.formatIfEmpty {
		if err == nil && empty {
			return nil, fmt.Errorf("region %s has length zero; format it with `daxfsd mkfs %s`", p.region, p.region)
		}
		r, err := openRegion(p.region, pmem.Options{ReadOnly: p.opts.readOnly})
		if err != nil || !p.flags.formatIfEmpty {
			return r, err
		}
		zero, err := isEmpty(r, progress)
		if err != nil || !zero {
			if err != nil {
				r.Close()
				return nil, fmt.Errorf("region %s: %w", p.region, err)
			}
			return r, nil
		}
		r.Close()
	}
	f := &mkfsFlags{size: p.flags.size}
	r, err := regionForMkfs(p.region, f, progress)
	if err != nil {
		return nil, err
	}
	o := fs.MkfsOptions{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	sb, err := fs.Mkfs(r, o)
	if err == nil {
		err = r.Sync(0, sb.Size)
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("region %s: formatting: %w", p.region, err)
	}
	warn(fmt.Sprintf("formatted the empty region %s (%s, uuid %s)", p.region, formatSize(sb.Size), uuidString(sb.UUID)))
	return r, nil
}

// mountFacts is the value of fusefs.InfoXattr.
func mountFacts(p *mountPlan, r *pmem.Region, sb *layout.Superblock, core *fs.FS, since time.Time) []byte {
	d := describe(p.region, r, sb)
	b, _ := json.Marshal(fusefs.Info{
		Version: versionString(), PID: os.Getpid(), Since: since, Mountpoint: p.mountpoint, Options: p.opts.list(),
		Region: d.Region, Kind: d.Kind, RegionSize: d.RegionSize, Align: d.Align, Durability: d.Durability, Promise: d.Promise,
		Size: d.Size, Label: d.Label, UUID: d.UUID, Format: d.Format, Created: d.Created,
		Stats: core.Stats(),
	})
	return b
}
