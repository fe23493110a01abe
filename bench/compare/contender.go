package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// dataFiles is how many files fio has: one for each of its processes.
const dataFiles = 4

// exitUnavailable is what a server exits with where the machine lacks what it needs.
const exitUnavailable = 3

// errUnavailable: this machine cannot have the target; nothing is wrong.
var errUnavailable = errors.New("not available here")

// contender is what rows are measured on. stopped -> started (start) -> stopped (stop); files stay,
// but for the null bound's, which has none.
type contender struct {
	name string
	dir  string // where the client works; the mount point of what is served

	env     *environment
	region  string // daxfsd: of this size
	size    int64
	asking  float64 // daxfsd: objects that the daemon allocates when it is asked for its state
	options string  // daxfsd: of the mount
	backing string  // loopbacks: what they show
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	ended   chan error
}

// environment is what all targets share.
type environment struct {
	conf    *config
	dir     string // of everything
	memory  string // a tmpfs of 4 KiB pages
	regions string // the tmpfs for regions
	daxfsd  string // the binary
	disk    string // a directory on ext4
	noDisk  string // why there is none
}

// targetNames in the order they are shown.
var contenderNames = []string{
	"daxfsd-uring", "daxfsd-dev", "daxfsd-uring-cached", "daxfsd-dev-cached",
	"loopback", "loopback-cached", "passthrough", "null-uring", "null-dev", "tmpfs", "ext4",
}

func (t *contender) daxfsd() bool { return strings.HasPrefix(t.name, "daxfsd-") }
func (t *contender) null() bool   { return strings.HasPrefix(t.name, "null-") }
func (t *contender) served() bool { return t.name != "tmpfs" && t.name != "ext4" }

// newContender makes a target below a directory of its own; a daxfsd has a region of that size,
// newly formatted.
func (e *environment) newContender(ctx context.Context, name, phase string, region int64) (*contender, error) {
	t := &contender{name: name, env: e}
	switch {
	case name == "tmpfs":
		t.dir = filepath.Join(e.memory, phase+"-tmpfs")
	case name == "ext4":
		if e.noDisk != "" {
			return nil, fmt.Errorf("%w: %s", errUnavailable, e.noDisk)
		}
		t.dir = filepath.Join(e.disk, phase)
	default:
		t.dir = filepath.Join(e.dir, phase+"-"+name)
	}
	if strings.Contains(name, "uring") {
		if why := noUring(); why != "" {
			return nil, fmt.Errorf("%w: %s", errUnavailable, why)
		}
	}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, err
	}
	if t.daxfsd() {
		kind, dax := "dev", "always"
		if strings.Contains(name, "uring") {
			kind = "uring"
		}
		if strings.HasSuffix(name, "-cached") {
			dax = "never"
		}
		t.options = "transport=" + kind + ",dax=" + dax
		t.region = filepath.Join(e.regions, phase+"-"+name)
		t.size = region
		if err := t.format(ctx); err != nil {
			return nil, err
		}
	} else if t.served() && !t.null() {
		t.backing = filepath.Join(e.memory, phase+"-"+name)
		if err := os.MkdirAll(t.backing, 0o755); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// format makes the region. All its memory is there before anything is measured.
func (t *contender) format(ctx context.Context) error {
	out, err := program(ctx, "", t.env.daxfsd, "mkfs", "--force", "--size", fmt.Sprint(t.size), t.region)
	if err != nil {
		return fmt.Errorf("%s: mkfs: %w\n%s", t.name, err, out)
	}
	return nil
}

// start has it served. The process dies with the thread that starts it, which is the main one.
func (t *contender) start(ctx context.Context) error {
	if !t.served() {
		return nil
	}
	if t.daxfsd() {
		t.cmd = exec.Command(t.env.daxfsd, "mount", "--foreground", "-o", t.options, t.region, t.dir)
	} else {
		t.cmd = exec.Command("/proc/self/exe", "serve", "--backing", t.backing, "--size", fmt.Sprint(t.env.conf.Size), t.name, t.dir)
	}
	t.stderr.Reset()
	t.cmd.Stderr = &t.stderr
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := t.cmd.Start(); err != nil {
		t.cmd = nil
		return err
	}
	t.ended = make(chan error, 1)
	go func(c *exec.Cmd, ended chan error) { ended <- c.Wait() }(t.cmd, t.ended)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-t.ended:
			code := t.cmd.ProcessState.ExitCode()
			t.cmd = nil
			text := strings.TrimSpace(t.stderr.String())
			if code == exitUnavailable {
				return fmt.Errorf("%w: %s", errUnavailable, text)
			}
			return fmt.Errorf("%s did not start: %v: %s", t.name, err, text)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if ok, err := mountinfo.Mounted(t.dir); err == nil && ok {
			return t.answers(ctx, deadline)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not start in time", t.name)
		}
	}
}

// answers waits until the mount does, in a process that may be left behind if it never does.
func (t *contender) answers(ctx context.Context, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if out, err := program(ctx, "", "stat", t.dir); err != nil {
		return fmt.Errorf("%s does not answer: %w: %s", t.name, err, out)
	}
	return nil
}

// stop unmounts it and waits for the server's end.
func (t *contender) stop() error {
	if t.cmd == nil {
		return nil
	}
	var err error
	for i := 0; ; i++ {
		if err = unix.Unmount(t.dir, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EBUSY) || i == 200 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		_ = unix.Unmount(t.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		_ = t.cmd.Process.Kill()
		err = fmt.Errorf("%s: unmounting: %w", t.name, err)
	}
	select {
	case e := <-t.ended:
		if e != nil && err == nil {
			err = fmt.Errorf("%s ended with %v: %s", t.name, e, strings.TrimSpace(t.stderr.String()))
		}
	case <-time.After(time.Minute):
		_ = t.cmd.Process.Kill()
		<-t.ended
		err = fmt.Errorf("%s did not end when it was unmounted", t.name)
	}
	t.cmd = nil
	return err
}

// remove stops it and deletes what it kept.
func (t *contender) remove() error {
	err := t.stop()
	for _, f := range []string{t.region, t.backing, t.dir} {
		if f != "" {
			err = errors.Join(err, os.RemoveAll(f))
		}
	}
	return err
}

// restart has it served anew, with none of the kernel's caches.
func (t *contender) restart(ctx context.Context) error {
	if err := t.stop(); err != nil {
		return err
	}
	return t.start(ctx)
}

// program runs a program, with its children, until it ends or ctx does.
func program(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 10 * time.Second
	err := c.Run()
	return out.String(), err
}
