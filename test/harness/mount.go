package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
)

// A Mount is one region, emulated unless RegionEnv names another, and its mount point. Its states
// and transitions:
//
//	unmounted -> mounted   Up
//	mounted   -> unmounted Umount
//	mounted   -> dead      Kill9: the mount point is there, the daemon is not
//	unmounted -> dead      KillUp, which kills a starting daemon; or still unmounted
//	mounted   -> unmounted KillUmount, which kills an ending daemon
//	dead      -> mounted   Up, which recovers
//	any       -> gone      destroy, at the end of the test at the latest
type Mount struct {
	Dir        string // directory of the files below, and of files that the test keeps off the mount
	Region     string
	Mountpoint string
	Options    string // mount options that Up adds after those of OptionsEnv

	t      *testing.T
	log    string // path of the daemon's log
	ending bool   // the daemon may end by itself

	mu   sync.Mutex
	conn string // /sys/fs/fuse/connections/N while mounted or dead, protected by mu
	pid  int    // the daemon's pid while mounted, protected by mu
}

var (
	liveMu sync.Mutex
	live   = map[*Mount]bool{} // protected by liveMu
)

func liveMounts() (l []*Mount) {
	liveMu.Lock()
	defer liveMu.Unlock()
	for m := range live {
		l = append(l, m)
	}
	return l
}

// New formats a sparse emulated region of size bytes and mounts it. If the test still runs after
// limit, or shortly before the deadline of the test binary, the mount is destroyed, which makes
// every call that hangs on it fail.
func New(t *testing.T, size int64, limit time.Duration) *Mount {
	t.Helper()
	return start(t, "", "", size, limit)
}

// NewOn is New on the region at the given path.
func NewOn(t *testing.T, region string, size int64, limit time.Duration) *Mount {
	t.Helper()
	return start(t, region, "", size, limit)
}

// NewWith is New with mount options.
func NewWith(t *testing.T, options string, size int64, limit time.Duration) *Mount {
	t.Helper()
	return start(t, "", options, size, limit)
}

// Existing returns a Mount of an existing region with a filesystem that is not mounted, and that
// may need recovery. Up mounts it.
func Existing(t *testing.T, region, options string, limit time.Duration) *Mount {
	t.Helper()
	return unmounted(t, region, options, limit)
}

func start(t *testing.T, region, options string, size int64, limit time.Duration) *Mount {
	t.Helper()
	mkfs := []string{"mkfs", "--sparse", "--size", strconv.FormatInt(size, 10)}
	if r := os.Getenv(RegionEnv); r != "" && region == "" {
		region, mkfs = r, []string{"mkfs", "--force"}
	}
	m := unmounted(t, region, options, limit)
	Run(t, time.Minute, "", nil, Daxfsd, append(mkfs, m.Region)...)
	m.Up()
	return m
}

// unmounted returns a Mount whose region it does not format or mount.
func unmounted(t *testing.T, region, options string, limit time.Duration) *Mount {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount and must run as root: try `sudo make e2e`")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("these tests need /dev/fuse (%v): load the kernel module with `modprobe fuse`", err)
	}
	dir, err := os.MkdirTemp(os.Getenv(dirEnv), "")
	if err != nil {
		t.Fatal(err)
	}
	mount := &Mount{t: t, Options: options, Dir: dir, Region: filepath.Join(dir, "region"), Mountpoint: filepath.Join(dir, "mnt"), log: filepath.Join(dir, "log")}
	if region != "" {
		mount.Region = region
	}
	if err := os.Mkdir(mount.Mountpoint, 0o755); err != nil {
		t.Fatal(err)
	}
	liveMu.Lock()
	live[mount] = true
	liveMu.Unlock()
	if deadline, ok := t.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-20*time.Second)
	}
	watchdog := time.AfterFunc(limit, func() {
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s: not done after %v: destroying its mount\n%s\n", t.Name(), limit, buf[:runtime.Stack(buf, true)])
		t.Errorf("not done after %v", limit)
		mount.destroy()
	})
	t.Cleanup(func() {
		// Unmount in the ordinary way first, after a failed test, too.
		if mount.mounted() {
			if out, err := Command(time.Minute, "", nil, Daxfsd, "umount", mount.Mountpoint); err != nil {
				t.Errorf("umount at the end: %v: %s", err, out)
			} else {
				mount.forget()
			}
		}
		watchdog.Stop()
		if logged, err := os.ReadFile(mount.log); err == nil && t.Failed() {
			if len(logged) > 8<<10 {
				logged = logged[len(logged)-8<<10:]
			}
			t.Logf("the daemon's log:\n%s", logged)
		}
		mount.destroy()
	})
	return mount
}

func (m *Mount) mounted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn != ""
}

func (m *Mount) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn, m.pid = "", 0
}

// Up mounts the region and returns how long the command took.
func (m *Mount) Up() time.Duration {
	m.t.Helper()
	start := time.Now()
	Run(m.t, 2*time.Minute, "", nil, Daxfsd, "mount", "--log", m.log, "-o", os.Getenv(OptionsEnv), "-o", m.Options, m.Region, m.Mountpoint)
	took := time.Since(start)
	var st, parent unix.Stat_t
	if err := unix.Stat(m.Mountpoint, &st); err != nil {
		m.t.Fatalf("stat of the mount point after mount: %v", err)
	}
	if err := unix.Stat(m.Dir, &parent); err != nil || parent.Dev == st.Dev {
		m.t.Fatalf("`daxfsd mount` returned and nothing is mounted (%v)", err)
	}
	m.mu.Lock()
	m.conn = fmt.Sprintf("/sys/fs/fuse/connections/%d", unix.Minor(st.Dev))
	m.mu.Unlock()
	var info struct{ Mount struct{ PID int } }
	if err := json.Unmarshal([]byte(Run(m.t, time.Minute, "", nil, Daxfsd, "info", "--json", m.Mountpoint)), &info); err != nil || info.Mount.PID <= 1 {
		m.t.Fatalf("`daxfsd info --json` of the mount names no daemon (pid %d, %v)", info.Mount.PID, err)
	}
	m.mu.Lock()
	m.pid = info.Mount.PID
	m.mu.Unlock()
	return took
}

// Down unmounts, and requires that the region is marked clean.
func (m *Mount) Down() {
	m.t.Helper()
	m.Umount()
	if !m.Fsck().Clean {
		m.t.Fatal("unmounted, and fsck says that it was not")
	}
}

// Umount unmounts with daxfsd umount.
func (m *Mount) Umount() {
	m.t.Helper()
	Run(m.t, 2*time.Minute, "", nil, Daxfsd, "umount", m.Mountpoint)
	m.forget()
}

// Force unmounts with daxfsd umount --force, which aborts a filesystem that is in use.
func (m *Mount) Force() {
	m.t.Helper()
	m.ending = true
	defer func() { m.ending = false }()
	Run(m.t, 2*time.Minute, "", nil, Daxfsd, "umount", "--force", m.Mountpoint)
	m.gone()
	m.forget()
}

// Again unmounts, checks and mounts again.
func (m *Mount) Again() {
	m.t.Helper()
	m.Down()
	m.Up()
}

// Fsck requires that fsck finds no problem, other than those that the next mount mends. No daemon
// may serve the region.
func (m *Mount) Fsck() (rep fsck.Report) {
	m.t.Helper()
	out, err := Command(2*time.Minute, "", nil, Daxfsd, "fsck", "-n", "--json", m.Region)
	if err != nil {
		m.t.Fatalf("fsck -n: %v: %s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		m.t.Fatalf("fsck -n --json: %v: %s", err, out)
	}
	return rep
}

// Kill9 kills the daemon with SIGKILL and waits until it is gone.
func (m *Mount) Kill9() {
	m.t.Helper()
	if err := Signal(m.PID(), syscall.SIGKILL); err != nil {
		m.t.Fatalf("kill -9 of the daemon: %v", err)
	}
	m.gone()
}

// Abort aborts the connection, as umount -f does, and waits until the daemon is gone. The mount is
// dead afterwards if a process uses it, otherwise unmounted.
func (m *Mount) Abort() {
	m.t.Helper()
	m.ending = true
	defer func() { m.ending = false }()
	if err := unix.Unmount(m.Mountpoint, unix.MNT_FORCE); err != nil && err != unix.EBUSY {
		m.t.Fatalf("aborting the connection: %v", err)
	}
	m.gone()
}

// Kill9AtWork has the kernel kill the daemon at a clock tick that finds it running, after it has
// used up to one more second of CPU time. A process that sends a signal needs a CPU itself, so it
// mostly hits a daemon that waits for a CPU or for requests.
func (m *Mount) Kill9AtWork() {
	m.t.Helper()
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^m.PID()<<3|2), &used); err != nil { // the clock's id, as clock_getcpuclockid(3) computes it
		m.t.Fatalf("processor time of the daemon: %v", err)
	}
	limit := unix.Rlimit{Cur: uint64(used.Sec) + 1, Max: uint64(used.Sec) + 1}
	if err := unix.Prlimit(m.PID(), unix.RLIMIT_CPU, &limit, nil); err != nil {
		m.t.Fatalf("limiting the daemon's processor time: %v", err)
	}
	for start := time.Now(); m.running() && time.Since(start) < 20*time.Second; time.Sleep(time.Millisecond) {
	}
	if m.running() { // it is idle
		_ = Signal(m.PID(), syscall.SIGKILL)
	}
	m.gone()
}

func (m *Mount) running() bool {
	return Signal(m.PID(), 0) == nil
}

// Signal sends a signal to a daemon. It returns ESRCH for a pid of 0 or 1: kill(2) of pid 0 would
// signal the tests themselves.
func Signal(pid int, sig syscall.Signal) error {
	if pid <= 1 {
		return syscall.ESRCH
	}
	return syscall.Kill(pid, sig)
}

// gone waits until the killed daemon has ended, and with it its lock on the region. The daemon must
// have died of SIGKILL; it may have ended by itself only if ending is set.
func (m *Mount) gone() {
	m.t.Helper()
	pid := m.PID()
	status, start := ended(pid), time.Now()
	for ; status == nil; status = ended(pid) {
		if time.Since(start) > 30*time.Second {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			m.t.Fatalf("30 s after SIGKILL the daemon is still there:\n%s", b)
		}
		time.Sleep(time.Millisecond)
	}
	m.mu.Lock()
	m.pid = 0
	m.mu.Unlock()
	if status.Signal() != syscall.SIGKILL && (!m.ending || status.ExitStatus() != 0) {
		m.t.Fatalf("the daemon ended by itself: exit code %d, signal %v", status.ExitStatus(), status.Signal())
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.Mountpoint, &st); err != nil && err != unix.ENOTCONN && err != unix.ECONNABORTED && err != unix.ECANCELED {
		m.t.Fatalf("the daemon is dead and its mount point says %v, not ENOTCONN", err)
	}
}

// KillUp starts a daemon and kills it after the given time, in recovery or in whatever it does
// then. It reports whether the daemon had begun to serve.
func (m *Mount) KillUp(after time.Duration) (serving bool) {
	m.t.Helper()
	before := m.logged("mounted")
	cmd := prepare(context.Background(), "", nil, Daxfsd, "mount", "--foreground", "--log", m.log, m.Region, m.Mountpoint)
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	m.pid = cmd.Process.Pid
	m.mu.Unlock()
	time.Sleep(after)
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
		m.t.Fatalf("the daemon ended by itself within %v of its start: %v", after, err)
	}
	return m.logged("mounted") > before
}

// KillUmount unmounts, and kills the daemon the given time after the command began. It reports
// whether the daemon had finished the unmount.
func (m *Mount) KillUmount(after time.Duration) (unmounted bool) {
	m.t.Helper()
	before := m.logged("unmounted")
	daemon, err := os.FindProcess(m.PID()) // a pidfd: the pid may belong to another process by then
	if err != nil {
		m.t.Fatal(err)
	}
	m.ending = true
	defer func() { m.ending = false }()
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		time.Sleep(after)
		_ = daemon.Kill()
	}()
	Run(m.t, time.Minute, "", nil, Daxfsd, "umount", m.Mountpoint)
	<-killed
	m.gone()
	m.forget()
	return m.logged("unmounted") > before
}

// logged returns how many messages with that text are in the log.
func (m *Mount) logged(msg string) int {
	b, err := os.ReadFile(m.log)
	if err != nil {
		m.t.Fatal(err)
	}
	return bytes.Count(b, []byte(`"msg":"`+msg+`"`))
}

// PID returns the daemon's pid; 0 if there is no daemon.
func (m *Mount) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

// Alive fails the test if the daemon that was mounted last is not running.
func (m *Mount) Alive() {
	m.t.Helper()
	if !m.running() {
		m.t.Fatal("the daemon is gone")
	}
}

// destroy kills the daemon and detaches the mount. It does nothing if that was done already.
func (m *Mount) destroy() {
	liveMu.Lock()
	ours := live[m]
	delete(live, m)
	liveMu.Unlock()
	if !ours {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != "" {
		_ = os.WriteFile(m.conn+"/abort", []byte("1"), 0)
	}
	_ = Signal(m.pid, syscall.SIGKILL)
	for unix.Unmount(m.Mountpoint, unix.MNT_DETACH) == nil {
	}
	m.conn, m.pid = "", 0
	// Remove the mount point first: RemoveAll would empty a filesystem that is still mounted.
	if os.Remove(m.Mountpoint) == nil {
		os.RemoveAll(m.Dir)
	}
}

// Path returns the path of a name on the mount.
func (m *Mount) Path(elem ...string) string {
	return filepath.Join(append([]string{m.Mountpoint}, elem...)...)
}

// Stats returns the daemon's figures, as daxfsd info prints them.
func (m *Mount) Stats() (s fs.Stats) {
	m.t.Helper()
	out := Run(m.t, time.Minute, "", nil, Daxfsd, "info", "--json", m.Mountpoint)
	var i struct {
		Mount fs.Stats `json:"mount"`
	}
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		m.t.Fatalf("%v in %s", err, out)
	}
	return i.Mount
}
