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

// dataFiles is the number of fio's data files, one for each of its processes.
const dataFiles = 4

// exitUnavailable is the exit code of a server on a machine that lacks what it needs.
const exitUnavailable = 3

// errUnavailable is returned if this machine cannot serve the contender. It is not a failure.
var errUnavailable = errors.New("not available here")

// contender is a filesystem that rows are measured on. States: stopped -> started (start) ->
// stopped (stop). Its files stay, except those of the null bound, which has none.
type contender struct {
	name string
	dir  string // where clients work; the mount point of a served contender

	env     *environment
	region  string  // daxfsd: path of the region
	size    int64   // daxfsd: bytes of the region
	asking  float64 // daxfsd: heap objects that the daemon allocates to report its state
	options string  // daxfsd: mount options
	backing string  // loopbacks: the directory that they serve
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	ended   chan error
}

// environment is what all contenders share.
type environment struct {
	conf    *config
	dir     string // parent of all files
	memory  string // a tmpfs of 4 KiB pages
	regions string // the tmpfs for regions
	daxfsd  string // path of the binary
	disk    string // a directory on ext4
	noDisk  string // why there is no ext4; "": there is
}

// contenderNames lists the contenders in the order in which they are shown.
var contenderNames = []string{
	"daxfsd-uring", "daxfsd-dev", "daxfsd-uring-cached", "daxfsd-dev-cached",
	"loopback", "loopback-cached", "passthrough", "null-uring", "null-dev", "tmpfs", "ext4",
}

// shownNames lists what can have a line in a table, in order: the contenders, and those that only
// the rows direct/* have.
var shownNames = append([]string{byClient, byMemory}, contenderNames...)

func (t *contender) daxfsd() bool { return strings.HasPrefix(t.name, "daxfsd-") }
func (t *contender) null() bool   { return strings.HasPrefix(t.name, "null-") }
func (t *contender) served() bool { return t.name != "tmpfs" && t.name != "ext4" }

// newContender makes a contender in a directory of its own. A daxfsd gets a newly formatted region
// of region bytes.
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

// format makes the region. mkfs allocates its memory, so that no measurement does.
func (t *contender) format(ctx context.Context) error {
	out, err := program(ctx, "", t.env.daxfsd, "mkfs", "--force", "--size", fmt.Sprint(t.size), t.region)
	if err != nil {
		return fmt.Errorf("%s: mkfs: %w\n%s", t.name, err, out)
	}
	return nil
}

// start serves the contender. The server dies with the thread that starts it, which is the main
// thread.
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

// answers waits until the mount answers. It asks in a separate process, which can be abandoned.
func (t *contender) answers(ctx context.Context, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if out, err := program(ctx, "", "stat", t.dir); err != nil {
		return fmt.Errorf("%s does not answer: %w: %s", t.name, err, out)
	}
	return nil
}

// stop unmounts the contender and waits for the end of its server.
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

// remove stops the contender and deletes its files.
func (t *contender) remove() error {
	err := t.stop()
	for _, f := range []string{t.region, t.backing, t.dir} {
		if f != "" {
			err = errors.Join(err, os.RemoveAll(f))
		}
	}
	return err
}

// restart serves the contender anew, so that the kernel has cached nothing.
func (t *contender) restart(ctx context.Context) error {
	if err := t.stop(); err != nil {
		return err
	}
	return t.start(ctx)
}

// program runs a program until it ends or ctx is done, and then kills it with its children. It
// returns standard output and standard error together.
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
