package mounted

import (
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
)

// A mount is one emulated region and its mount point. Its life:
//
//	unmounted -> mounted   up
//	mounted   -> unmounted down
//	mounted   -> dead      kill9: the mount point is there, the daemon is not
//	dead      -> mounted   up, which recovers
//	any       -> gone      destroy, at the end of the test at the latest
type mount struct {
	t      *testing.T
	dir    string // of the files below and of whatever the test keeps off the mount
	region string
	mnt    string
	log    string // of the daemon

	mu   sync.Mutex
	conn string // /sys/fs/fuse/connections/N while mounted or dead, protected by mu
	pid  int    // of the daemon while mounted, protected by mu
}

var (
	liveMu sync.Mutex
	live   = map[*mount]bool{} // protected by liveMu
)

func liveMounts() (l []*mount) {
	liveMu.Lock()
	defer liveMu.Unlock()
	for m := range live {
		l = append(l, m)
	}
	return l
}

// newMount formats a sparse emulated region of size bytes and mounts it. If the
// test still runs after limit, or shortly before the deadline of the test binary,
// the mount is destroyed under it, which makes whatever hangs on it fail.
func newMount(t *testing.T, size int64, limit time.Duration) *mount {
	t.Helper()
	return newMountOn(t, "", size, limit)
}

// newMountOn is newMount of a region with that name; "": one in a temporary directory.
func newMountOn(t *testing.T, region string, size int64, limit time.Duration) *mount {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests mount and must run as root: try `sudo make mounted`")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("these tests need /dev/fuse (%v): load the kernel module with `modprobe fuse`", err)
	}
	dir, err := os.MkdirTemp("", "daxfs-mounted-")
	if err != nil {
		t.Fatal(err)
	}
	m := &mount{t: t, dir: dir, region: filepath.Join(dir, "region"), mnt: filepath.Join(dir, "mnt"), log: filepath.Join(dir, "log")}
	if region != "" {
		m.region = region
	}
	if err := os.Mkdir(m.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	liveMu.Lock()
	live[m] = true
	liveMu.Unlock()
	if d, ok := t.Deadline(); ok {
		limit = min(limit, time.Until(d)-20*time.Second)
	}
	watchdog := time.AfterFunc(limit, func() {
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s: not done after %v: destroying its mount\n%s\n", t.Name(), limit, buf[:runtime.Stack(buf, true)])
		t.Errorf("not done after %v", limit)
		m.destroy()
	})
	t.Cleanup(func() {
		// Also after a failure: the ordinary way first.
		if m.mounted() {
			if out, err := command(time.Minute, "", nil, daxfsd, "umount", m.mnt); err != nil {
				t.Errorf("umount at the end: %v: %s", err, out)
			} else {
				m.forget()
			}
		}
		watchdog.Stop()
		if b, err := os.ReadFile(m.log); err == nil && t.Failed() {
			if len(b) > 8<<10 {
				b = b[len(b)-8<<10:]
			}
			t.Logf("the daemon's log:\n%s", b)
		}
		m.destroy()
	})
	run(t, time.Minute, "", nil, daxfsd, "mkfs", "--sparse", "--size", strconv.FormatInt(size, 10), m.region)
	m.up()
	return m
}

func (m *mount) mounted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn != ""
}

func (m *mount) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn, m.pid = "", 0
}

// up mounts the region and returns how long the command took.
func (m *mount) up() time.Duration {
	m.t.Helper()
	start := time.Now()
	run(m.t, 2*time.Minute, "", nil, daxfsd, "mount", "--log", m.log, m.region, m.mnt)
	took := time.Since(start)
	var st, parent unix.Stat_t
	if err := unix.Stat(m.mnt, &st); err != nil {
		m.t.Fatalf("stat of the mount point after mount: %v", err)
	}
	if err := unix.Stat(m.dir, &parent); err != nil || parent.Dev == st.Dev {
		m.t.Fatalf("`daxfsd mount` returned and nothing is mounted (%v)", err)
	}
	m.mu.Lock()
	m.conn = fmt.Sprintf("/sys/fs/fuse/connections/%d", unix.Minor(st.Dev))
	m.mu.Unlock()
	var info struct{ Mount struct{ PID int } }
	if err := json.Unmarshal([]byte(run(m.t, time.Minute, "", nil, daxfsd, "info", "--json", m.mnt)), &info); err != nil || info.Mount.PID <= 1 {
		m.t.Fatalf("`daxfsd info --json` of the mount names no daemon (pid %d, %v)", info.Mount.PID, err)
	}
	m.mu.Lock()
	m.pid = info.Mount.PID
	m.mu.Unlock()
	return took
}

// down unmounts and requires that the region is clean.
func (m *mount) down() {
	m.t.Helper()
	run(m.t, 2*time.Minute, "", nil, daxfsd, "umount", m.mnt)
	m.forget()
	m.fsck()
}

// again unmounts, checks and mounts.
func (m *mount) again() {
	m.t.Helper()
	m.down()
	m.up()
}

// fsck requires that the unmounted region has nothing wrong.
func (m *mount) fsck() {
	m.t.Helper()
	if out, err := command(2*time.Minute, "", nil, daxfsd, "fsck", "-n", m.region); err != nil {
		m.t.Fatalf("fsck -n: %v: %s", err, out)
	}
}

// kill9 ends the daemon as a crash would and waits until the kernel knows.
func (m *mount) kill9() {
	m.t.Helper()
	if err := syscall.Kill(m.daemon(), syscall.SIGKILL); err != nil {
		m.t.Fatalf("kill -9 of the daemon: %v", err)
	}
	for i := 0; ; i++ {
		var st unix.Statfs_t
		if err := unix.Statfs(m.mnt, &st); err == unix.ENOTCONN {
			return
		} else if i == 3000 {
			m.t.Fatalf("30 s after the daemon's death the mount point says %v, not ENOTCONN", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *mount) daemon() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

// alive fails the test if the daemon that was mounted last is not running.
func (m *mount) alive() {
	m.t.Helper()
	if err := syscall.Kill(m.daemon(), 0); err != nil {
		m.t.Fatalf("the daemon is gone: %v", err)
	}
}

// destroy takes the mount away by force; harmless if it is gone already.
func (m *mount) destroy() {
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
	if m.pid > 1 {
		_ = syscall.Kill(m.pid, syscall.SIGKILL)
	}
	for unix.Unmount(m.mnt, unix.MNT_DETACH) == nil {
	}
	m.conn, m.pid = "", 0
	// Not RemoveAll of everything at once: were something mounted still, it would
	// be emptied.
	if os.Remove(m.mnt) == nil {
		os.RemoveAll(m.dir)
	}
}

// path is a name on the mount.
func (m *mount) path(elem ...string) string {
	return filepath.Join(append([]string{m.mnt}, elem...)...)
}
