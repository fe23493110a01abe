package guest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// nfsServer is the kernel's NFS server of this guest, with the user-space daemons of Debian's
// nfs-kernel-server. harness.Main ends these daemons with the tests.
type nfsServer struct {
	exported string // the exported mount point
}

// fsid identifies the filesystem in its handles, since a FUSE mount has no other lasting
// identifier.
const fsid = "7c6bd0f5-9ce3-4a07-8b06-5cdbd9bcbe97"

// startNFS starts the daemons until the end of the test. It exports nothing yet.
func startNFS(t *testing.T) *nfsServer {
	t.Helper()
	for _, module := range []string{"nfsd", "nfsv3", "nfsv4"} {
		run(t, "modprobe", module)
	}
	for _, dir := range []string{"/run/rpcbind", "/var/lib/nfs/nfsdcld", "/var/lib/nfs/rpc_pipefs", "/etc/exports.d"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"/etc/passwd":        "root:x:0:0:root:/root:/bin/sh\n_rpc:x:100:65534::/run/rpcbind:/bin/false\n",
		"/var/lib/nfs/etab":  "",
		"/var/lib/nfs/rmtab": "",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// In the grace period (seconds) the server grants no new locks, since clients may reclaim old
	// ones.
	if err := os.WriteFile("/proc/sys/fs/nfs/nlm_grace_period", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	for dir, fstype := range map[string]string{"/proc/fs/nfsd": "nfsd", "/var/lib/nfs/rpc_pipefs": "rpc_pipefs"} {
		if err := unix.Mount(fstype, dir, fstype, 0, ""); err != nil {
			t.Fatalf("mounting %s: %v", fstype, err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // the daemons have it open
				t.Errorf("unmounting %s: %v", fstype, err)
			}
		})
	}
	run(t, "rpcbind", "-w")
	run(t, "nfsdcld", "-p", "/var/lib/nfs/rpc_pipefs")
	run(t, "rpc.mountd", "-p", "20048")
	server := &nfsServer{}
	t.Cleanup(func() { server.stop(t) })
	return server
}

// export makes the server export a mount until the end of the test. The line is the one that
// docs/compatibility.md recommends.
func (s *nfsServer) export(t *testing.T, m *harness.Mount) {
	t.Helper()
	s.exported = m.Mountpoint
	line := fmt.Sprintf("%s 127.0.0.1(rw,no_subtree_check,mountpoint,fsid=%s,no_root_squash)\n", m.Mountpoint, fsid)
	if err := os.WriteFile("/etc/exports", []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
}

// start does what nfs-server.service does.
func (s *nfsServer) start(t *testing.T) {
	t.Helper()
	if out := run(t, "exportfs", "-r"); out != "" {
		t.Errorf("exportfs -r: %s", out)
	}
	run(t, "rpc.nfsd", "--lease-time", "10", "8")
}

// stop does what nfs-server.service does, and waits until the server no longer uses the mount.
func (s *nfsServer) stop(t *testing.T) {
	t.Helper()
	run(t, "rpc.nfsd", "0")
	run(t, "exportfs", "-au")
	run(t, "exportfs", "-f")
	if b, err := os.ReadFile("/proc/fs/nfsd/threads"); err != nil || strings.TrimSpace(string(b)) != "0" {
		t.Errorf("the server, stopped, has %q threads (%v)", b, err)
	}
	until(t, "the server to let go of the mount", func() bool {
		return unix.Unmount(s.exported, unix.MNT_EXPIRE) != unix.EBUSY // EAGAIN: the mount is not in use
	})
	_, _ = os.Stat(s.exported) // an access, so that the next MNT_EXPIRE does not unmount it
}

// nfsOptions make the kernel's client give up if the server does not answer, and make it cache no
// attributes, since the tests compare both sides.
const nfsOptions = ",addr=127.0.0.1,soft,timeo=300,retrans=2,actimeo=0"

// nfsVersion is a version of the protocol, and the filesystem type and options to mount with it.
type nfsVersion struct{ name, fstype, options string }

var (
	nfs4 = nfsVersion{"v4.2", "nfs4", "vers=4.2,clientaddr=127.0.0.1" + nfsOptions}
	nfs3 = nfsVersion{"v3", "nfs", "vers=3,nolock,proto=tcp,mountproto=tcp" + nfsOptions}
)

// mountNFS mounts the export until the end of the test, and returns the mount point.
func (s *nfsServer) mountNFS(t *testing.T, v nfsVersion) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("127.0.0.1:"+s.exported, dir, v.fstype, 0, v.options); err != nil {
		t.Fatalf("mounting by NFS with %s: %v", v.options, err)
	}
	t.Cleanup(func() {
		err := unix.Unmount(dir, 0)
		for start := time.Now(); err == unix.EBUSY && time.Since(start) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
			err = unix.Unmount(dir, 0) // the last close may still be in progress
		}
		if err != nil {
			t.Errorf("unmounting the NFS client: %v", err)
			_ = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
		}
	})
	return dir
}
