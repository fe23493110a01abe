package fusefs

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
)

// TestKillSGID checks that a file with set-group-ID and without group execution keeps set-group-ID
// if the writer is in its group, and loses it if the writer is not, or if that is unknown.
func TestKillSGID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a program as another user")
	}
	const uid, gid, group = 1234, 1235, 4242
	member := exec.Command("sleep", "60")
	member.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: []uint32{4241, group, 4243}}, Pdeathsig: syscall.SIGKILL}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	defer member.Wait()
	defer member.Process.Kill()
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(member.Process.Pid)
	for _, c := range []struct {
		name string
		h    fuse.Caller
		file uint32 // group of the file
		kept bool
	}{
		{"its own group", fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: group}, Pid: 0}, group, true},
		{"another of its groups", fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: gid}, Pid: pid}, group, true},
		{"none of its groups", fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: gid}, Pid: pid}, 4244, false},
		{"a process that cannot be seen", fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: gid}, Pid: 0}, group, false},
		{"a process that is gone", fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: gid}, Pid: uint32(gone.Process.Pid)}, group, false},
		{"other credentials than the process has: user", fuse.Caller{Owner: fuse.Owner{Uid: 77, Gid: gid}, Pid: pid}, group, false},
		{"other credentials than the process has: group", fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: 77}, Pid: pid}, group, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMounted(t, DAXAlways)
			for op, do := range map[string]func(h fuse.InHeader) fuse.Status{
				"write": func(h fuse.InHeader) fuse.Status {
					th := transport.InHeader{NodeID: h.NodeId, UID: h.Uid, GID: h.Gid, PID: h.Pid}
					_, e := m.Queue(0).Write(&th, &transport.WriteIn{WriteFlags: fuse.WRITE_KILL_SUIDGID}, []byte("x"))
					if e != transport.SlowPath {
						return status(e)
					}
					_, s := m.Write(nil, &fuse.WriteIn{InHeader: h, WriteFlags: fuse.WRITE_KILL_SUIDGID}, []byte("x"))
					return s
				},
				"truncate": func(h fuse.InHeader) fuse.Status {
					var out fuse.AttrOut
					return m.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_SIZE | fuse.FATTR_KILL_SUIDGID, Size: 5}}, &out)
				},
				"fallocate": func(h fuse.InHeader) fuse.Status {
					return m.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Length: 10000})
				},
			} {
				ino := m.create(op, 0o6766)
				m.v.OK(m.core.SetAttr(&m.v.Ctx, ino, &fs.SetAttr{Valid: fs.SetGID | fs.SetMode, GID: c.file, Mode: 0o6766}, new(fs.Attr)))
				m.ok(op, do(fuse.InHeader{NodeId: ino, Caller: c.h}))
				want := uint32(0o766)
				if c.kept {
					want = 0o2766
				}
				if got := m.stat(ino).Mode &^ syscall.S_IFMT; got != want {
					t.Errorf("%s made it %04o, want %04o", op, got, want)
				}
			}
		})
	}
}

func TestStatusIDs(t *testing.T) {
	const status = "Name:\tGroups: 7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 4294967295 30 \nNSpid:\t1\n"
	for name, want := range map[string]int{"Uid:": 4, "Groups:": 3, "NSpid:": 1, "Absent:": 0} {
		if got := statusIDs([]byte(status), name); len(got) != want {
			t.Errorf("%s %v, want %d numbers", name, got, want)
		}
	}
}
