package fusefs

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// newGranting is newMounted with grants, whose locks the test takes.
func newGranting(t testing.TB, dax DAX) (*mounted, *lease.Fake) {
	t.Helper()
	locks := new(lease.Fake)
	v := fstest.Format(t, fstest.Memory(t, 32<<20), fs.MkfsOptions{}, fs.Options{Clock: fstest.RealTime, Direct: fs.DirectWrite, Locks: locks})
	t.Cleanup(v.Unmount)
	return &mounted{New(v.FS, dax, nil), v}, locks
}

// open opens a file and returns its handle.
func (m *mounted) open(ino uint64, flags uint32) (fh uint64, fopen uint32) {
	m.v.Helper()
	fopenFlags, e := m.core.Open(&m.v.Ctx, ino, flags)
	m.v.OK(e)
	return m.opened(ino, fopenFlags, flags)
}

// ioctl calls a command with an argument that is also the reply.
func (m *mounted) ioctl(ino, fh uint64, cmd uint32, arg []byte) (reply []byte, e syscall.Errno) {
	reply = make([]byte, len(arg))
	in := &fuse.IoctlIn{InHeader: header(ino), Fh: fh, Cmd: cmd}
	return reply, syscall.Errno(m.Ioctl(nil, in, arg, new(fuse.IoctlOut), reply))
}

// grant asks for a range of a file.
func (m *mounted) askGrant(ino, fh uint64, q protocol.GrantRequest) (g protocol.Grant, e syscall.Errno) {
	m.v.Helper()
	b := make([]byte, protocol.GrantSize)
	q.Encode(b)
	reply, e := m.ioctl(ino, fh, protocol.IocGrant, b)
	if e == 0 {
		if err := g.Decode(reply, &q); err != nil {
			m.v.Fatal(err)
		}
	}
	return g, e
}

func (m *mounted) command(ino, fh uint64, cmd uint32, c protocol.Command) syscall.Errno {
	m.v.Helper()
	b := make([]byte, protocol.CommandSize)
	c.Encode(b)
	reply, e := m.ioctl(ino, fh, cmd, b)
	if e == 0 {
		if err := protocol.DecodeReply(reply); err != nil {
			m.v.Error(err)
		}
	}
	return e
}

// use takes or drops the locks of a grant.
func use(k *lease.Fake, g *protocol.Grant, d int) {
	for _, x := range g.Extents {
		k.Lock(int64(x.Region), int64(x.Region+x.Length), d)
	}
	id := protocol.Identity(g.ID, g.Flags&protocol.Write != 0)
	k.Lock(id, id+1, d)
}

// TestGrantIoctl checks a grant's life by ioctl, the access mode of the open file, and how long the
// kernel may cache the attributes meanwhile.
func TestGrantIoctl(t *testing.T) {
	m, locks := newGranting(t, DAXAlways)
	ino := m.create("f", 0o600)
	m.write(ino, 0, make([]byte, 8192))
	all := protocol.GrantRequest{Length: 1 << 20}
	toWrite := protocol.GrantRequest{Length: 1 << 20, Flags: protocol.Write}
	for name, c := range map[string]struct {
		flags uint32
		q     protocol.GrantRequest
		e     syscall.Errno
	}{
		"read, open to read":        {syscall.O_RDONLY, all, 0},
		"read, open to write":       {syscall.O_WRONLY, all, syscall.EBADF},
		"read, open for both":       {syscall.O_RDWR, all, 0},
		"write, open to read":       {syscall.O_RDONLY, toWrite, syscall.EBADF},
		"write, open to write":      {syscall.O_WRONLY, toWrite, 0},
		"write, open for both":      {syscall.O_RDWR, toWrite, 0},
		"write, open without modes": {syscall.O_ACCMODE, toWrite, 0}, // the kernel allows ioctl(2) only
	} {
		fh, _ := m.open(ino, c.flags)
		g, e := m.askGrant(ino, fh, c.q)
		if e != c.e || e == 0 && (g.End != 8192 || len(g.Extents) != 1 || g.FileSize != 8192) {
			t.Errorf("%s: %+v, %v, want %v", name, g, e, c.e)
		}
		m.released(ino, fh)
	}
	if m.core.Direct().Mapped(ino) {
		t.Error("grants outlive the open file, and were not confirmed")
	}

	fh, _ := m.open(ino, syscall.O_RDWR)
	g, e := m.askGrant(ino, fh, toWrite)
	m.v.OK(e)
	use(locks, &g, 1)
	m.v.OK(m.command(ino, fh, protocol.IocConfirm, protocol.Command{ID: g.ID, Generation: g.Generation}))
	m.released(ino, fh)
	timeout := func() uint64 {
		var out fuse.AttrOut
		m.ok("getattr", m.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(ino)}, &out))
		return out.AttrValid
	}
	if timeout() != 0 {
		t.Error("attributes are cached while a program stores")
	}
	fh, _ = m.open(ino, syscall.O_RDONLY)
	m.v.OK(m.command(ino, fh, protocol.IocCommit, protocol.Command{ID: g.ID, Offset: 100, Length: 5}))
	use(locks, &g, -1)
	m.v.OK(m.command(ino, fh, protocol.IocRelease, protocol.Command{ID: g.ID}))
	if timeout() == 0 {
		t.Error("attributes are not cached after the program has ended")
	}
	if e := m.command(ino, fh, protocol.IocCommit, protocol.Command{ID: g.ID}); e != syscall.ENOENT {
		t.Errorf("commit after the end: %v", e)
	}
	m.released(ino, fh)

	b := make([]byte, protocol.GrantSize)
	all.Encode(b)
	b[0]++
	reply, e := m.ioctl(ino, fh, protocol.IocGrant, b)
	if err := new(protocol.Grant).Decode(reply, &all); e != 0 || err != nil && !errors.Is(err, protocol.ErrMalformed) {
		t.Errorf("another version: %v, %v, want this version and no more", e, err)
	}
}

// TestGrantAndCache checks that the kernel does not cache a file while programs map it, and that
// nobody maps a file that the kernel caches.
func TestGrantAndCache(t *testing.T) {
	q := protocol.GrantRequest{Length: 4096}
	for _, dax := range []DAX{DAXNever, DAXInode} {
		m, locks := newGranting(t, dax)
		ino := m.create("f", 0o600)
		m.write(ino, 0, make([]byte, 4096))
		cached, fopen := m.open(ino, syscall.O_RDONLY)
		if _, e := m.askGrant(ino, cached, q); e != syscall.EOPNOTSUPP || fopen != openCached {
			t.Errorf("%v: grant of a cached file: %v", dax, e)
		}
		if dax == DAXNever {
			continue
		}
		m.v.OK(m.core.SetFlags(&m.v.Ctx, ino, 0x02000000, nil)) // FS_DAX_FL
		direct, fopen := m.open(ino, syscall.O_RDONLY)
		if _, e := m.askGrant(ino, direct, q); e != syscall.EOPNOTSUPP || fopen != openDirect {
			t.Errorf("grant beside a cached open: %v", e)
		}
		m.released(ino, cached)
		g, e := m.askGrant(ino, direct, q)
		m.v.OK(e)
		use(locks, &g, 1)
		m.v.OK(m.command(ino, direct, protocol.IocConfirm, protocol.Command{ID: g.ID, Generation: g.Generation}))
		m.v.OK(m.core.SetFlags(&m.v.Ctx, ino, 0, nil))
		if _, fopen = m.open(ino, syscall.O_RDONLY); fopen != openDirect {
			t.Error("a mapped file is opened cached")
		}
		use(locks, &g, -1)
		m.v.OK(m.command(ino, direct, protocol.IocRelease, protocol.Command{ID: g.ID}))
		if _, fopen = m.open(ino, syscall.O_RDONLY); fopen != openCached {
			t.Error("a file that no program maps any more is not cached")
		}
	}
}

// FuzzGrantIoctl feeds the commands arbitrary bytes. Nothing panics, and no file but the one that
// is open is granted.
func FuzzGrantIoctl(f *testing.F) {
	m, locks := newGranting(f, DAXAlways)
	ino := m.create("f", 0o600)
	m.write(ino, 0, make([]byte, 64<<10))
	fh, _ := m.open(ino, syscall.O_RDWR)
	b := make([]byte, protocol.GrantSize)
	(&protocol.GrantRequest{Flags: protocol.Write, Length: 1 << 20}).Encode(b)
	f.Add(uint8(0), b)
	(&protocol.GrantRequest{Offset: 4096, Length: 4096, PageSize: 2 << 20}).Encode(b)
	f.Add(uint8(0), b)
	c := make([]byte, protocol.CommandSize)
	(&protocol.Command{ID: 1}).Encode(c)
	for i := range uint8(3) {
		f.Add(1+i, c)
	}
	defer func() { m.v.TB = f }()
	f.Fuzz(func(t *testing.T, cmd uint8, arg []byte) {
		m.v.TB = t
		cmds := []uint32{protocol.IocGrant, protocol.IocConfirm, protocol.IocCommit, protocol.IocRelease}
		began := time.Now()
		defer func() {
			if d := time.Since(began); d > time.Second {
				t.Errorf("it takes %v", d)
			}
		}()
		reply, e := m.ioctl(ino, fh, cmds[cmd%4], arg)
		var q protocol.GrantRequest
		if cmd%4 != 0 || e != 0 || q.Decode(arg) != nil {
			return
		}
		var g protocol.Grant
		if err := g.Decode(reply, &q); err != nil || g.Inode != ino {
			t.Fatalf("reply to %+v: %+v, %v", q, g, err)
		}
		use(locks, &g, 1)
		if e := m.command(ino, fh, protocol.IocConfirm, protocol.Command{ID: g.ID, Generation: g.Generation}); e != 0 {
			t.Errorf("confirm: %v", e)
		}
		use(locks, &g, -1)
		if e := m.command(ino, fh, protocol.IocRelease, protocol.Command{ID: g.ID}); e != 0 {
			t.Errorf("release: %v", e)
		}
	})
}
