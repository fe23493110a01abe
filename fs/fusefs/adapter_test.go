package fusefs

import (
	"bytes"
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/internal/invariants"
)

// mounted is an adapter over a filesystem in memory, without a kernel.
type mounted struct {
	*Adapter
	v *fstest.Volume
}

func newMounted(t testing.TB, dax DAX) *mounted {
	t.Helper()
	v := fstest.Format(t, fstest.Memory(t, 32<<20), fs.MkfsOptions{}, fs.Options{Clock: fstest.RealTime})
	t.Cleanup(v.Unmount)
	return &mounted{New(v.FS, dax, func() []byte { return []byte(`{"pid":1}`) }), v}
}

// The methods below call a queue that may wait, with go-fuse's types.

func (m *mounted) waits(h *fuse.InHeader) (*queue, *transport.InHeader) {
	return m.newQueue(0, true), &transport.InHeader{NodeID: h.NodeId, UID: h.Uid, GID: h.Gid, PID: h.Pid}
}

func (m *mounted) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	var o transport.EntryOut
	q, th := m.waits(h)
	e := q.Lookup(th, name, &o)
	*out = *entryOut(&o)
	return status(e)
}

func (m *mounted) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	var o transport.EntryOut
	q, th := m.waits(&in.InHeader)
	e := q.Mkdir(th, &transport.MkdirIn{Mode: in.Mode, Umask: in.Umask}, name, &o)
	*out = *entryOut(&o)
	return status(e)
}

func (m *mounted) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	var o transport.CreateOut
	q, th := m.waits(&in.InHeader)
	e := q.Create(th, &transport.CreateIn{Flags: in.Flags, Mode: in.Mode, Umask: in.Umask}, name, &o)
	out.EntryOut, out.OpenFlags, out.Fh = *entryOut(&o.Entry), o.Open.OpenFlags, o.Open.Fh
	return status(e)
}

func (m *mounted) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	var o transport.AttrOut
	q, th := m.waits(&in.InHeader)
	e := q.Getattr(th, nil, &o)
	*out = *attrOut(&o)
	return status(e)
}

func (m *mounted) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	var o transport.AttrOut
	q, th := m.waits(&in.InHeader)
	e := q.Setattr(th, &transport.SetattrIn{Valid: in.Valid, Size: in.Size, Mode: in.Mode, UID: in.Owner.Uid, GID: in.Owner.Gid,
		Atime: in.Atime, Atimensec: in.Atimensec, Mtime: in.Mtime, Mtimensec: in.Mtimensec, Ctime: in.Ctime, Ctimensec: in.Ctimensec}, &o)
	*out = *attrOut(&o)
	return status(e)
}

func (m *mounted) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	q, th := m.waits(&in.InHeader)
	n, e := q.Write(th, &transport.WriteIn{Offset: in.Offset, WriteFlags: in.WriteFlags, Flags: in.Flags}, data)
	return uint32(n), status(e)
}

func header(ino uint64) fuse.InHeader { return fuse.InHeader{NodeId: ino} }

func (m *mounted) ok(what string, s fuse.Status) {
	m.v.Helper()
	if s != fuse.OK {
		m.v.Fatalf("%s: %v", what, s)
	}
}

func (m *mounted) create(name string, mode uint32) uint64 {
	m.v.Helper()
	var out fuse.CreateOut
	m.ok("create", m.Create(nil, &fuse.CreateIn{InHeader: header(1), Mode: mode}, name, &out))
	m.released(out.NodeId, out.Fh)
	return out.NodeId
}

func (m *mounted) write(ino uint64, off int64, data []byte) {
	m.v.Helper()
	n, e := m.Queue(0).Write(&transport.InHeader{NodeID: ino}, &transport.WriteIn{Offset: uint64(off)}, data)
	m.ok("write", status(e))
	if n != len(data) {
		m.v.Fatalf("wrote %d of %d bytes", n, len(data))
	}
}

func (m *mounted) stat(ino uint64) fuse.Attr {
	m.v.Helper()
	var out fuse.AttrOut
	m.ok("getattr", m.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(ino)}, &out))
	if out.Timeout() < time.Hour {
		m.v.Errorf("attributes are valid for %v only", out.Timeout())
	}
	return out.Attr
}

func TestRead(t *testing.T) {
	m := newMounted(t, DAXAlways)
	ino := m.create("f", 0o644)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1024)
	m.write(ino, 0, want)
	q, h, out := m.Queue(0), &transport.InHeader{NodeID: ino}, make([]byte, 1<<20)
	n, e := q.Read(h, &transport.ReadIn{Offset: 100}, out)
	m.ok("read", status(e))
	if !bytes.Equal(out[:n], want[100:]) {
		t.Fatalf("read %d bytes, want %d", n, len(want)-100)
	}
	for _, off := range []uint64{16384, 1 << 62, 1 << 63} { // at the end, and far beyond it
		if n, e := q.Read(h, &transport.ReadIn{Offset: off}, out[:4096]); n != 0 || e != 0 && (off < 1<<63 || e != syscall.EINVAL) {
			t.Errorf("read at offset %d: %d bytes, %v", off, n, e)
		}
	}
	m.write(ino, 0, bytes.Repeat([]byte("y"), 8192)) // would hang if the range were locked
	if _, e := q.Read(&transport.InHeader{NodeID: 1}, &transport.ReadIn{}, out[:1]); e != syscall.EISDIR {
		t.Errorf("reading a directory: %v", e)
	}
}

func allocs(t *testing.T, f func()) {
	t.Helper()
	if invariants.Enabled {
		t.Skip("checks allocate, and the race detector empties pools")
	}
	if n := testing.AllocsPerRun(1000, f); n != 0 {
		t.Errorf("%v allocations per run, want 0", n)
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	m := newMounted(t, DAXAlways)
	ino := m.create("f", 0o644)
	m.write(ino, 0, make([]byte, 1<<20))
	q, h := m.Queue(0), &transport.InHeader{NodeID: ino}
	for _, size := range []int{4096, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			in, out := &transport.ReadIn{}, make([]byte, size)
			allocs(t, func() {
				if n, e := q.Read(h, in, out); n != size || e != 0 {
					t.Fatal(n, e)
				}
			})
		})
	}
}

func TestWriteAllocatesNothing(t *testing.T) {
	m := newMounted(t, DAXAlways)
	ino := m.create("f", 0o644)
	m.write(ino, 0, make([]byte, 64<<10))
	q, h := m.Queue(0), &transport.InHeader{NodeID: ino, UID: 1}
	for name, c := range map[string]struct {
		in   transport.WriteIn
		data []byte
		step uint64
	}{
		"in place":            {data: make([]byte, 64<<10)},
		"without CAP_FSETID":  {data: make([]byte, 64<<10), in: transport.WriteIn{WriteFlags: fuse.WRITE_KILL_SUIDGID}},
		"growing":             {data: make([]byte, 4096), step: 4096},
		"past the page cache": {data: make([]byte, 4096), in: transport.WriteIn{WriteFlags: fuse.WRITE_LOCKOWNER}},
	} {
		t.Run(name, func(t *testing.T) {
			in := c.in
			allocs(t, func() {
				if n, e := q.Write(h, &in, c.data); e != 0 || n != len(c.data) {
					t.Fatal(n, e)
				}
				in.Offset += c.step
			})
		})
	}
}

func TestStatAllocatesNothing(t *testing.T) {
	m := newMounted(t, DAXAlways)
	ino := m.create("f", 0o644)
	q, h, root := m.Queue(0), &transport.InHeader{NodeID: ino}, &transport.InHeader{NodeID: 1}
	var a transport.AttrOut
	var x transport.EntryOut
	allocs(t, func() {
		if e := q.Getattr(h, nil, &a); e != 0 || a.Attr.Ino != ino {
			t.Fatal(e)
		}
		if e := q.Lookup(root, "f", &x); e != 0 || x.NodeID != ino {
			t.Fatal(e)
		}
		q.Forget(ino, 1)
	})
}

func TestUmaskIsOurs(t *testing.T) {
	m := newMounted(t, DAXAlways)
	var e fuse.EntryOut
	m.ok("mkdir", m.Mkdir(nil, &fuse.MkdirIn{InHeader: header(1), Mode: 0o1777, Umask: 0o022}, "d", &e))
	if e.Mode != syscall.S_IFDIR|0o1755 {
		t.Errorf("mkdir: mode %o", e.Mode)
	}
	m.ok("mknod", m.Mknod(nil, &fuse.MknodIn{InHeader: header(1), Mode: syscall.S_IFIFO | 0o666, Umask: 0o027}, "p", &e))
	if e.Mode != syscall.S_IFIFO|0o640 {
		t.Errorf("mknod: mode %o", e.Mode)
	}
	var c fuse.CreateOut
	m.ok("create", m.Create(nil, &fuse.CreateIn{InHeader: header(1), Mode: 0o4777, Umask: 0o077}, "f", &c))
	if c.Mode != syscall.S_IFREG|0o4700 {
		t.Errorf("create: mode %o", c.Mode)
	}
}

func TestKillPriv(t *testing.T) {
	for _, c := range []struct{ mode, want uint32 }{
		{0o6755, 0o755}, {0o2755, 0o755}, {0o2745, 0o2745}, {0o4711, 0o711}, {0o644, 0o644},
	} {
		m := newMounted(t, DAXAlways)
		ino := m.create("f", c.mode)
		m.write(ino, 0, []byte("privileged"))
		if got := m.stat(ino).Mode &^ syscall.S_IFMT; got != c.mode {
			t.Errorf("%o: a privileged write made it %o", c.mode, got)
		}
		if _, e := m.Queue(0).Write(&transport.InHeader{NodeID: ino}, &transport.WriteIn{WriteFlags: fuse.WRITE_KILL_SUIDGID}, []byte("x")); (e == transport.SlowPath) != (c.want != c.mode) || e != 0 && e != transport.SlowPath {
			t.Errorf("%o: a queue answers %v", c.mode, e)
		}
		_, s := m.Write(nil, &fuse.WriteIn{InHeader: header(ino), WriteFlags: fuse.WRITE_KILL_SUIDGID}, []byte("x"))
		m.ok("write", s)
		if got := m.stat(ino).Mode &^ syscall.S_IFMT; got != c.want {
			t.Errorf("%o: a write made it %o, want %o", c.mode, got, c.want)
		}
		ino = m.create("g", c.mode)
		var out fuse.AttrOut
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(ino), Valid: fuse.FATTR_SIZE | fuse.FATTR_KILL_SUIDGID, Size: 5}}
		m.ok("truncate", m.SetAttr(nil, in, &out))
		if got := out.Mode &^ syscall.S_IFMT; got != c.want || out.Size != 5 {
			t.Errorf("%o: a truncate made it %o of size %d, want %o and 5", c.mode, got, out.Size, c.want)
		}
	}
}

func TestNegativeEntriesAreRemembered(t *testing.T) {
	m := newMounted(t, DAXAlways)
	e := fuse.EntryOut{NodeId: 99}
	h := header(1)
	m.ok("lookup", m.Lookup(nil, &h, "absent", &e))
	if e.NodeId != 0 || e.EntryTimeout() < time.Hour {
		t.Errorf("nodeid %d, valid for %v", e.NodeId, e.EntryTimeout())
	}
}

// TestLookupByNumber checks the lookups for NFS handles: "." in any inode, ".." in a directory.
func TestLookupByNumber(t *testing.T) {
	m := newMounted(t, DAXAlways)
	ino := m.create("f", 0o644)
	h := header(ino)
	var e fuse.EntryOut
	m.ok("lookup .", m.Lookup(nil, &h, ".", &e))
	if e.NodeId != ino || e.Generation == 0 {
		t.Errorf("nodeid %d generation %d", e.NodeId, e.Generation)
	}
	h = header(123456)
	if s := m.Lookup(nil, &h, ".", &e); s != fuse.Status(syscall.ESTALE) {
		t.Errorf("a number that names nothing: %v, want ESTALE", s)
	}
	gone := m.create("gone", 0o644)
	m.v.Unlink("/gone")
	h = header(gone) // its FORGET has not come yet
	if s := m.Lookup(nil, &h, ".", &e); s != fuse.Status(syscall.ESTALE) {
		t.Errorf("a file without a name: %v, want ESTALE", s)
	}
	m.Forget(gone, 1)
	h = header(1)
	m.ok("lookup ..", m.Lookup(nil, &h, "..", &e))
	if e.NodeId != 1 {
		t.Errorf("the root's parent is %d", e.NodeId)
	}
	m.Forget(ino, 2)
	m.Forget(1, 1)
}

// TestReadDirInPieces checks that a directory is listed once and completely, in pieces that resume
// by cookie, while entries that were listed are removed.
func TestReadDirInPieces(t *testing.T) {
	for _, plus := range []bool{false, true} {
		m := newMounted(t, DAXAlways)
		q := m.Queue(0)
		want := map[string]bool{".": true, "..": true}
		for i := range 300 {
			name := fmt.Sprintf("%0*d", 1+i%200, i)
			want[name] = true
			m.Forget(m.create(name, 0o600), 1)
		}
		off := uint64(0)
		for {
			buf := make([]byte, 2048)
			n, e := q.Readdir(&transport.InHeader{NodeID: 1}, &transport.ReadIn{Offset: off, Size: 2048}, plus, buf)
			m.ok("readdir", status(e))
			var es []fuse.DirEntry
			var err error
			if plus {
				var outs []fuse.EntryOut
				es, outs, err = fuse.ParseDirLookupEntries(buf[:n])
				for i, o := range outs {
					dot := es[i].Name == "." || es[i].Name == ".."
					if dot != (o.NodeId == 0) || !dot && o.NodeId != es[i].Ino {
						t.Errorf("%q: nodeid %d, inode %d", es[i].Name, o.NodeId, es[i].Ino)
					}
					if !dot {
						m.Forget(o.NodeId, 1)
					}
				}
			} else {
				es, err = fuse.ParseDirEntries(buf[:n])
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(es) == 0 {
				break
			}
			for _, e := range es {
				if !want[e.Name] {
					t.Errorf("%q is listed twice, or was never made", e.Name)
				}
				delete(want, e.Name)
				if e.Name[0] != '.' {
					m.ok("unlink", status(q.Unlink(&transport.InHeader{NodeID: 1}, e.Name)))
				}
			}
			off = es[len(es)-1].Off
		}
		if len(want) != 0 {
			t.Errorf("plus %v: %d names were not listed", plus, len(want))
		}
		if n := m.core.Stats().Inodes; n != 1 {
			t.Errorf("plus %v: %d inodes in use after everything was removed and forgotten", plus, n)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, ns := range []int64{0, 1, -1, -nsPerSec, 1<<62 + 12345, -1 << 62} {
		sec, nsec := splitTime(ns)
		if nsec >= nsPerSec || joinTime(sec, nsec) != ns {
			t.Errorf("%d becomes %d s %d ns and back %d", ns, int64(sec), nsec, joinTime(sec, nsec))
		}
	}
	for sec, want := range map[int64]int64{math.MaxInt64: math.MaxInt64, 1 << 40: math.MaxInt64, math.MinInt64: math.MinInt64, -1 << 40: math.MinInt64} {
		if got := joinTime(uint64(sec), 0); got != want {
			t.Errorf("second %d becomes %d, want the nearest, %d", sec, got, want)
		}
	}
	m := newMounted(t, DAXAlways)
	ino := m.create("f", 0o644)
	set := func(valid uint32) fuse.AttrOut {
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(ino), Valid: valid, Atime: ^uint64(0), Atimensec: 999999999, Mtime: 4e9, Mtimensec: 7}}
		var out fuse.AttrOut
		m.ok("utimens", m.SetAttr(nil, in, &out))
		return out
	}
	if out := set(fuse.FATTR_ATIME | fuse.FATTR_MTIME); int64(out.Atime) != -1 || out.Atimensec != 999999999 || out.Mtime != 4e9 || out.Mtimensec != 7 {
		t.Errorf("atime %d.%09d mtime %d.%09d", int64(out.Atime), out.Atimensec, out.Mtime, out.Mtimensec)
	}
	now := time.Now()
	out := set(fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW)
	if d := time.Unix(int64(out.Atime), int64(out.Atimensec)).Sub(now).Abs(); d > time.Minute || out.Mtime != 4e9 {
		t.Errorf("now is %v off, mtime %d", d, out.Mtime)
	}
	var x fuse.StatxOut
	m.ok("statx", m.Statx(nil, &fuse.StatxIn{InHeader: header(ino)}, &x))
	if d := time.Unix(int64(x.Btime.Sec), int64(x.Btime.Nsec)).Sub(now).Abs(); d > time.Minute || x.Ino != ino {
		t.Errorf("birth time is %v off", d)
	}
}

func TestOpenFlags(t *testing.T) {
	for dax, want := range map[DAX]uint32{
		DAXAlways: fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES,
		DAXNever:  fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE,
	} {
		m := newMounted(t, dax)
		var c fuse.CreateOut
		m.ok("create", m.Create(nil, &fuse.CreateIn{InHeader: header(1)}, "f", &c))
		var o transport.OpenOut
		m.ok("open", status(m.Queue(0).Open(&transport.InHeader{NodeID: c.NodeId}, &transport.OpenIn{}, &o)))
		if o.OpenFlags != want || c.OpenFlags != want {
			t.Errorf("dax=%v: open %#x, create %#x, want %#x", dax, o.OpenFlags, c.OpenFlags, want)
		}
	}
	m := newMounted(t, DAXInode)
	dir := m.v.Mkdir("/d")
	m.ok("chattr +x", status(m.core.SetFlags(&m.v.Ctx, dir, layout.FlagDAX, nil)))
	for in, want := range map[uint64]uint32{1: openCached, dir: openDirect} {
		var c fuse.CreateOut
		m.ok("create", m.Create(nil, &fuse.CreateIn{InHeader: header(in)}, "f", &c))
		flags := func() uint32 {
			var o transport.OpenOut
			m.ok("open", status(m.Queue(0).Open(&transport.InHeader{NodeID: c.NodeId}, &transport.OpenIn{}, &o)))
			return o.OpenFlags
		}
		if got := flags(); got != want || c.OpenFlags != want {
			t.Errorf("dax=inode in %d: open %#x, create %#x, want %#x", in, got, c.OpenFlags, want)
		}
		for flag, want := range map[uint32]uint32{0: openCached, layout.FlagDAX: openDirect} {
			m.ok("chattr", status(m.core.SetFlags(&m.v.Ctx, c.NodeId, flag, nil)))
			if got := flags(); got != want {
				t.Errorf("dax=inode, flags %#x: open %#x, want %#x", flag, got, want)
			}
		}
	}
}

func TestInfoXattr(t *testing.T) {
	m := newMounted(t, DAXAlways)
	h := header(1)
	buf := make([]byte, 100)
	if n, s := m.GetXAttr(nil, &h, InfoXattr, buf); s != fuse.OK || string(buf[:n]) != `{"pid":1}` {
		t.Errorf("%q, %v", buf[:n], s)
	}
	if n, s := m.GetXAttr(nil, &h, InfoXattr, nil); s != fuse.ERANGE || n != 9 {
		t.Errorf("asking for the size: %d, %v", n, s)
	}
	if _, s := m.GetXAttr(nil, &h, "user.x", buf); s != fuse.ENODATA {
		t.Errorf("another name: %v", s)
	}
	h = header(m.create("f", 0o600))
	if n, s := m.GetXAttr(nil, &h, InfoXattr, buf); s != fuse.OK || string(buf[:n]) != `{"pid":1}` {
		t.Errorf("another inode, as a bind mount has it for its root: %q, %v", buf[:n], s)
	}
}

// TestInfoIsKeptForUsers checks that root gets the figures of the moment, and other users those of
// a moment ago.
func TestInfoIsKeptForUsers(t *testing.T) {
	m := newMounted(t, DAXAlways)
	n := byte('0')
	m.info = func() []byte { time.Sleep(20 * time.Millisecond); n++; return []byte{n} }
	ask := func(uid uint32) string {
		h, buf := header(1), make([]byte, 10)
		h.Uid = uid
		k, s := m.GetXAttr(nil, &h, InfoXattr, buf)
		m.ok("getxattr", s)
		return string(buf[:k])
	}
	if got := ask(0) + ask(0); got != "12" {
		t.Errorf("root is told %s, want 12", got)
	}
	if got := ask(1000) + ask(1000) + ask(1001); got != "333" {
		t.Errorf("users are told %s, want 333", got)
	}
	if got := ask(0); got != "4" {
		t.Errorf("root is told %s then, want 4", got)
	}
}
