package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// measurement is a run in progress.
type measurement struct {
	*environment
	ctx    context.Context
	report *Report
}

// run measures, and writes the reports that the command line names. It runs in the process in the
// namespace.
func run(ctx context.Context, o *config) error {
	runtime.LockOSThread() // its children die with this thread (Pdeathsig)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	e, err := newEnvironment(ctx, o)
	if err != nil {
		return err
	}
	defer e.close()
	m := &measurement{environment: e, ctx: ctx, report: &Report{Started: time.Now(), Machine: e.describe(), Config: o, Errors: []string{}}}
	fmt.Fprintln(os.Stderr, m.report.Machine.String())
	for _, phase := range []func() error{m.data, m.metadata, m.extents, m.directMapping, m.inodes} {
		if err := phase(); err != nil {
			return err
		}
	}
	r := m.report
	if len(r.Rows) == 0 {
		return errors.New("no row was selected")
	}
	r.Took = time.Since(r.Started)
	r.Targets = judge(r)
	r.text(os.Stdout)
	if err := r.publish(o); err != nil {
		return err
	}
	if n := len(r.Errors); n > 0 {
		return fmt.Errorf("%d runs failed", n)
	}
	if n := len(slices.DeleteFunc(slices.Clone(r.Targets), func(b *target) bool { return b.Verdict == met })); o.check && n > 0 {
		return fmt.Errorf("%d targets were missed or not measured", n)
	}
	return nil
}

// publish writes the report files that the command line names.
func (r *Report) publish(o *config) error {
	for _, f := range []struct {
		name  string
		write func(string) error
	}{{o.json, r.write}, {o.html, r.html}, {o.plots, r.plots}, {o.figure, r.figure}, {o.report, r.markdown}} {
		if f.name != "" {
			if err := f.write(f.name); err != nil {
				return fmt.Errorf("writing %s: %w", f.name, err)
			}
		}
	}
	return nil
}

// newEnvironment builds daxfsd and creates the directories and memory filesystems.
func newEnvironment(ctx context.Context, o *config) (*environment, error) {
	for _, p := range []string{"fio", "git", "tar"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("%s is missing: `make bench` installs it", p)
		}
	}
	dir := os.Getenv(dirEnv)
	e := &environment{
		conf: o, dir: dir, memory: filepath.Join(dir, "memory"), regions: filepath.Join(dir, "regions"),
		daxfsd: filepath.Join(dir, "daxfsd"),
	}
	commit, err := program(ctx, "", "git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")
	if err != nil {
		commit = "unknown" // an archive of the source, not a clone
	}
	if out, err := program(ctx, "", "go", "build", "-trimpath", "-ldflags", "-X main.commit="+strings.TrimSpace(commit), "-o", e.daxfsd, "github.com/daxfsd/daxfsd/cmd/daxfsd"); err != nil {
		return nil, fmt.Errorf("building daxfsd: %w\n%s", err, out)
	}
	if err := writeJobs(filepath.Join(dir, "jobs")); err != nil {
		return nil, err
	}
	if err := mountMemory(e.memory, "never"); err != nil {
		return nil, err
	}
	if err := mountMemory(e.regions, o.Huge); err != nil {
		return nil, err
	}
	return e, e.findDisk(ctx)
}

// findDisk finds a directory on ext4, or makes an ext4 in an image file.
func (e *environment) findDisk(ctx context.Context) error {
	e.disk = filepath.Join(e.dir, "ext4")
	if err := os.Mkdir(e.disk, 0o755); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(e.disk, &st); err != nil {
		return err
	}
	if st.Type == unix.EXT4_SUPER_MAGIC {
		return nil
	}
	image := filepath.Join(e.dir, "ext4.image")
	size := fmt.Sprint(dataFiles*e.conf.Size + 2<<30)
	for _, c := range [][]string{
		{"truncate", "-s", size, image}, {"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, e.disk},
	} {
		if out, err := program(ctx, "", c[0], c[1:]...); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			e.noDisk = fmt.Sprintf("%s is not on ext4, and %s failed: %v: %s", e.conf.dir, c[0], err, out)
			return nil
		}
	}
	return nil
}

// close unmounts what would stay mounted as long as any process is in the namespace.
func (e *environment) close() {
	for _, d := range []string{e.disk, e.regions, e.memory} {
		_ = unix.Unmount(d, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}

// wants reports whether a row was selected.
func (e *environment) wants(row string) bool {
	return e.conf.rows.MatchString(row) && (!e.conf.TargetsOnly || hasTarget(row))
}

// wanted returns those of the contenders' names that were selected.
func (e *environment) wanted(names ...string) (l []string) {
	for _, n := range names {
		if e.conf.contenders.MatchString(n) {
			l = append(l, n)
		}
	}
	return l
}

// try runs f, which measures rows on a contender. It records and prints a failure of f and returns
// nil, so that the others are measured; it returns an error only if the run was interrupted.
func (m *measurement) try(round int, what, contender string, rows []*row, f func() error) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "round %d of %d  %-22s %s\n", round+1, m.conf.Rounds, what, contender)
	err := f()
	switch {
	case err == nil:
		return nil
	case m.ctx.Err() != nil:
		return m.ctx.Err()
	}
	if !errors.Is(err, errUnavailable) {
		text := fmt.Sprintf("%s on %s: %v", what, contender, err)
		fmt.Fprintln(os.Stderr, "FAILED:", text)
		m.report.Errors = append(m.report.Errors, text)
	}
	unmeasured(rows, contender, err.Error())
	return nil
}

// data measures the fio rows, on mounts that stay for all rounds.
func (m *measurement) data() (err error) {
	var rows []fioRow
	var shown []*row
	for _, fioRow := range fioRows() {
		if m.wants(fioRow.String()) {
			rows = append(rows, fioRow)
			shown = append(shown, m.report.row(fioRow.String(), fioRow.metric(), false))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	var contenders []*contender
	defer func() {
		for _, t := range contenders {
			err = errors.Join(err, t.remove())
		}
	}()
	for _, name := range m.wanted(contenderNames...) {
		err := m.try(0, "data files", name, shown, func() error {
			// Room for the files, for journals, and for the space that is reserved.
			t, err := m.newContender(m.ctx, name, "data", dataFiles*m.conf.Size*5/4+128<<20)
			if err != nil {
				return err
			}
			if err = t.start(m.ctx); err == nil {
				err = t.layout()
			}
			if err != nil {
				return errors.Join(err, t.remove())
			}
			contenders = append(contenders, t)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for round := range m.conf.Rounds {
		for i, spec := range rows {
			for _, t := range contenders {
				err := m.try(round, spec.String(), t.name, shown[i:i+1], func() error { return spec.measure(m.ctx, t, shown[i].cell(t.name)) })
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fresh makes f measure on a new contender, and removes the contender afterwards. region is in
// bytes.
func (m *measurement) fresh(name, phase string, region int64, f func(*contender) error) (err error) {
	t, err := m.newContender(m.ctx, name, phase, region)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.remove()) }()
	if err := t.start(m.ctx); err != nil {
		return err
	}
	return f(t)
}
