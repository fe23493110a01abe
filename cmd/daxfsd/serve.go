package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// syncInterval is how often a region in an ordinary file is written back, in case the host crashes.
const syncInterval = 30 * time.Second

// timesInterval is how old a lazily kept access or modification time gets before it is made
// durable: a crash loses only younger ones.
const timesInterval = 30 * time.Second

// compactInterval is the time between two steps of compaction.
const compactInterval = 2 * time.Second

// serveMount mounts, and serves until it is unmounted: the whole life of a daemon.
func serveMount(plan *mountPlan, rep *reporter) error {
	closeInherited()
	signal.Ignore(syscall.SIGPIPE) // the reader of the log may close its end
	log, endLog, err := newLogger(plan.flags.log, rep.w != nil)
	if err != nil {
		return err
	}
	defer endLog()
	defer func() { _ = log.Sync() }()
	log = log.With(zap.String("region", plan.region), zap.String("mountpoint", plan.mountpoint))
	warn := func(text string) { log.Warn(text); rep.send(reportLine{Kind: "note", Text: text}) }

	// From here on a signal must not end the process between two steps.
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

	region, super, verdict, err := openForMount(plan, progress, warn)
	if err != nil {
		return err
	}
	defer region.Close()
	access, err := region.Access()
	if err != nil {
		return err
	}
	plan.opts.finish(os.Geteuid() == 0, access)
	transport.Prioritize()

	facts := &facts{plan: plan, region: region, super: super, since: time.Now()}
	if why := directWhy(plan.opts, region); why != nil {
		facts.whyNotDirect = why.Error()
		plan.opts.noDirect = true
		if plan.opts.directSet {
			warn("programs cannot map files' own memory: " + facts.whyNotDirect)
		} else {
			log.Info("programs cannot map files' own memory", zap.String("why", facts.whyNotDirect))
		}
	}
	if s := leftBehind(plan, region); s != "" {
		warn(s)
	}
	conn, err := fusefs.Attach(fusefs.Options{
		Mountpoint: plan.mountpoint, Dir: plan.dir, Source: plan.region, DAX: plan.opts.dax, Transport: plan.opts.via, Kernel: plan.opts.kernel,
		Info: facts.info, Activity: facts.activity, Grants: facts.grants, Trace: tracer(plan.opts, log), NoPoll: plan.opts.noPoll,
		Log: zap.NewStdLog(log.Named("fuse")),
		Panicked: func(value any) {
			log.Fatal("panic: ending the daemon, the next mount recovers", zap.Any("panic", value), zap.ByteString("stack", debug.Stack()))
		},
	})
	if err != nil {
		return err
	}
	direct := plan.opts.direct
	if plan.opts.noDirect {
		direct = fs.DirectOff
	}
	core, err := fs.Mount(region, fs.Options{
		ReadOnly: plan.opts.readOnly, Atomic: plan.opts.atomic, Owner: verdict, Takeover: plan.opts.takeover, BeatInterval: owner.Interval, Scan: plan.opts.scan, Progress: progress, Warn: warn, Direct: direct,
		Atime: plan.opts.atime, NoDirAtime: plan.opts.noDirAtime, TimesInterval: timesInterval, SyncInterval: syncInterval, CompactInterval: compactInterval,
	})
	if err != nil {
		conn.Close()
		return superError(plan.region, region, err)
	}
	server, err := conn.Start(core)
	if err != nil {
		return errors.Join(err, core.Unmount())
	}
	facts.core, facts.server = core, server
	bar.end()
	var whyNot error
	if plan.opts.via, whyNot = server.Transport(); whyNot != nil {
		facts.whyNotUring = whyNot.Error()
		log.Info("requests come by /dev/fuse", zap.String("why_not_io_uring", facts.whyNotUring))
	}
	if !server.SharedMmap() {
		warn("this kernel maps files shared only with -o dax=never (Linux 6.6 lifts that)")
	}
	stats := core.Stats()
	log.Info("mounted", zap.String("version", versionString()), zap.String("kind", region.Kind().String()),
		zap.Strings("options", plan.opts.list()), zap.Int("replayed_records", stats.ReplayedRecords), zap.Int("freed_orphans", stats.FreedOrphans), zap.Bool("free_map", stats.FreeMap))
	done := make(chan struct{})
	go handleSignals(sig, done, server, log, plan.flags.foreground)
	if rep.w == nil {
		go enterUtab(plan.region, plan.mountpoint) // in the background the starter does this
	}
	rep.send(reportLine{Kind: "ready"})
	notifySystemd("READY=1")

	server.Serve()
	close(done)
	markEnding()
	leaveUtab(plan.mountpoint)
	notifySystemd("STOPPING=1")
	if err := core.Unmount(); err != nil {
		log.Error("the filesystem could not be made clean; the next mount recovers", zap.Error(err))
		return fmt.Errorf("region %s: making it clean: %w", plan.region, err)
	}
	log.Info("unmounted")
	return nil
}

// handleSignals unmounts at SIGTERM and SIGINT: at once if the mount is unused, otherwise it
// detaches the mount, which ends with its last user. It never unmounts what others have mounted on
// or over the mount, but retries every coveredInterval until that is gone. A second signal ends the
// daemon without unmounting, which is safe because the next mount recovers. SIGHUP counts only in
// the foreground.
func handleSignals(sig <-chan os.Signal, done <-chan struct{}, server *fusefs.Server, log *zap.Logger, foreground bool) {
	asked := false
	var again <-chan time.Time // set while another mount covers it
	for {
		select {
		case <-done:
			return
		case <-again:
		case s := <-sig:
			if s == syscall.SIGHUP && !foreground {
				continue
			}
			if asked {
				log.Warn("second signal: ending at once, the next mount recovers")
				_ = log.Sync()
				os.Exit(1)
			}
		}
		err := server.Unmount(fusefs.Plain)
		if errors.Is(err, fusefs.ErrBusy) {
			log.Warn("the mount is in use: detached, the daemon ends with its last user; signal again to end now")
			err = server.Unmount(fusefs.Lazy)
		}
		covered := errors.Is(err, fusefs.ErrCovered) || errors.Is(err, fusefs.ErrHidden)
		switch {
		case covered && again == nil:
			log.Warn("cannot be unmounted yet: unmount what is mounted on or over it, or signal again to end now", zap.Error(err))
		case err != nil && !covered:
			log.Error("unmounting failed", zap.Error(err))
		}
		asked, again = err == nil || covered, nil
		if covered {
			again = time.After(coveredInterval)
		}
	}
}

// coveredInterval is the time between two attempts to unmount a covered mount.
const coveredInterval = 200 * time.Millisecond

// openForMount opens the region, formats it if it is empty and --format-if-empty is given, and
// verifies that it can be mounted. After an error the region is unchanged.
func openForMount(p *mountPlan, progress progressFunc, warn func(string)) (*pmem.Region, *layout.Superblock, *owner.Verdict, error) {
	r, err := openOrFormat(p, progress, warn)
	if err != nil {
		return nil, nil, nil, err
	}
	sb, v, err := p.examine(r, progress, warn)
	if err != nil {
		r.Close()
		return nil, nil, nil, err
	}
	return r, sb, v, nil
}

// examine reads the superblock and finds out whether the region is in use. If the region is a copy
// of a mounted one, or the host went down while it was mounted, examine checks the whole filesystem
// first.
func (p *mountPlan) examine(r *pmem.Region, progress progressFunc, warn func(string)) (*layout.Superblock, *owner.Verdict, error) {
	sb, _, err := fs.ReadSuper(r)
	if err == nil {
		err = fs.CheckAlign(r, sb)
	}
	if err != nil {
		return nil, nil, superError(p.region, r, err)
	}
	v, err := owner.Judge(r, sb, owner.Options{Progress: progress})
	if err == nil {
		err = v.Refusal(p.opts.takeover, "-o takeover")
	}
	if err != nil {
		return nil, nil, superError(p.region, r, err)
	}
	why := ""
	switch {
	case p.opts.readOnly:
	case v.Copy:
		why = "this region is a copy of one that was not unmounted"
	case uncleanHostStop(r, sb):
		why = "the host went down while this emulated region was mounted"
	}
	if why == "" {
		return sb, v, nil
	}
	warn(why + ": checking it first")
	rep, err := fsck.Check(r, fsck.Options{Progress: progress, Owner: v})
	if err == nil && rep.Left > rep.LostRanges { // a check does not bring lost data back
		err = fmt.Errorf("region %s is damaged (%d problems, the first: %s): %s; `daxfsd fsck -y %s` repairs it",
			p.region, len(rep.Problems), rep.Problems[0].What, why, p.region)
	}
	if err != nil {
		return nil, nil, err
	}
	warn("the check found no damage")
	return sb, v, nil
}

// openOrFormat opens the region, and formats it first if it is empty and --format-if-empty is
// given. It opens the region once, so that what it formats is what it judged.
func openOrFormat(p *mountPlan, progress progressFunc, warn func(string)) (*pmem.Region, error) {
	if !p.flags.formatIfEmpty {
		return openRegion(p.region, pmem.Options{ReadOnly: p.opts.readOnly})
	}
	h, err := acquireRegion(p.region)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return formatIfEmpty(p, h, progress, warn)
}

// formatIfEmpty formats an acquired region that has length zero or is all zeros, and maps it. A
// region that holds something is only mapped.
func formatIfEmpty(p *mountPlan, h *pmem.Handle, progress progressFunc, warn func(string)) (*pmem.Region, error) {
	cancel, stop := cancelOnSignal()
	defer stop()
	f := &mkfsFlags{size: p.flags.size, cancel: cancel}
	r, err := f.prepare(p.region, h, progress)
	if errors.Is(err, errHolds) {
		return mapRegion(p.region, h)
	}
	if err != nil {
		return nil, err
	}
	sb, err := f.format(p.region, h, r, fs.MkfsOptions{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, progress)
	if err != nil {
		r.Close()
		return nil, err
	}
	warn(fmt.Sprintf("formatted the empty region %s (%s, uuid %s)", p.region, formatSize(sb.Size), uuidString(sb.UUID)))
	return r, nil
}

// directWhy returns why a mount makes no grants of files' own memory, although no option forbids
// it.
func directWhy(o *mountOptions, region *pmem.Region) error {
	switch {
	case o.direct == fs.DirectOff:
		return nil
	case o.readOnly:
		return errors.New("the mount is read-only")
	case o.dax == fusefs.DAXNever:
		return errors.New("the kernel caches files (option dax=never)")
	}
	return region.KeepsLocks()
}

// leftBehind says what programs still map since a former mount that this mount would not grant
// them; "" if there is nothing.
func leftBehind(p *mountPlan, region *pmem.Region) string {
	mode := p.opts.grants()
	if mode == fs.DirectWrite {
		return ""
	}
	l, err := leasedOf(region)
	if err != nil || !l.any() {
		return ""
	}
	makes := "makes no grants"
	if mode == fs.DirectRead {
		makes = "grants nothing to write"
	}
	return fmt.Sprintf("programs map %s of region %s since a former mount (%s), which is kept for them until they end, but this mount %s",
		formatSize(l.Bytes), p.region, usersText(regionUsers(p.region)), makes)
}
