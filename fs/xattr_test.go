package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

func (v *volume) getxattr(ino uint64, name string) []byte {
	v.t.Helper()
	n, e := v.fs.GetXattr(&v.ctx, ino, name, nil)
	v.ok(e)
	buf := make([]byte, n+1)
	n, e = v.fs.GetXattr(&v.ctx, ino, name, buf)
	v.ok(e)
	return buf[:n]
}

func (v *volume) listxattr(ino uint64) []string {
	v.t.Helper()
	n, e := v.fs.ListXattr(&v.ctx, ino, nil)
	v.ok(e)
	buf := make([]byte, n+1)
	n, e = v.fs.ListXattr(&v.ctx, ino, buf)
	v.ok(e)
	names := strings.Split(string(buf[:n]), "\x00")
	sort.Strings(names)
	return names[1:] // behind the last NUL
}

// TestXattrModel sets and removes attributes of a file, a directory and a symbolic link
// at random and compares them with maps.
func TestXattrModel(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.free()
	var a fs.Attr
	v.ok(v.fs.Symlink(&v.ctx, 1, "link", "target", &a))
	inos := []uint64{v.create(1, "file"), v.mkdir(1, "dir"), a.Ino}
	want := []map[string][]byte{{}, {}, {}}
	rnd := rand.New(rand.NewSource(1))
	for i := 0; i < 3000; i++ {
		k := rnd.Intn(3)
		ino, m := inos[k], want[k]
		name := fmt.Sprintf("%s.n%d", []string{"user", "trusted", "security"}[rnd.Intn(3)], rnd.Intn(8))
		if rnd.Intn(4) == 0 {
			name += strings.Repeat("x", rnd.Intn(240))
		}
		old, has := m[name]
		switch rnd.Intn(4) {
		case 0:
			e := v.fs.RemoveXattr(&v.ctx, ino, name)
			v.expect(e, !has, syscall.ENODATA)
			delete(m, name)
		case 1:
			value := make([]byte, rnd.Intn(20))
			flags := uint32(1 + rnd.Intn(2))
			e := v.fs.SetXattr(&v.ctx, ino, name, value, flags)
			if flags == fs.XattrCreate {
				v.expect(e, has, syscall.EEXIST)
			} else {
				v.expect(e, !has, syscall.ENODATA)
			}
			if e == 0 {
				m[name] = value
			}
		default:
			size := rnd.Intn(300)
			if rnd.Intn(3) == 0 {
				size = rnd.Intn(9000)
			} else if rnd.Intn(30) == 0 {
				size = layout.XattrValueMax
			}
			value := make([]byte, size)
			rnd.Read(value)
			switch e := v.fs.SetXattr(&v.ctx, ino, name, value, 0); e {
			case 0:
				m[name] = value
			case syscall.ENOSPC: // the old one stands
				if has {
					m[name] = old
				}
			default:
				t.Fatal(e)
			}
		}
		if rnd.Intn(100) == 0 {
			v.remount()
			for _, n := range []string{"file", "dir", "link"} {
				v.ok(v.fs.Lookup(&v.ctx, 1, n, &a))
			}
		}
		if i%50 != 0 {
			continue
		}
		for k, m := range want {
			names := v.listxattr(inos[k])
			if len(names) != len(m) {
				t.Fatalf("%d names, expected %d", len(names), len(m))
			}
			for _, n := range names {
				if got := v.getxattr(inos[k], n); !bytes.Equal(got, m[n]) || m[n] == nil {
					t.Fatalf("%s has %d bytes, expected %d", n, len(got), len(m[n]))
				}
			}
		}
	}
	v.checked()
	v.removeAll(1)
	v.remount()
	if v.free() != free {
		t.Errorf("%d blocks free at the start, %d at the end", free, v.free())
	}
}

// checked remounts and compares the free space that the mount rebuilt from what inodes
// claim with what it was.
func (v *volume) checked() {
	v.t.Helper()
	was := v.free()
	v.remount()
	if now := v.free(); now != was {
		v.t.Fatalf("%d blocks were free, the mount found %d", was, now)
	}
}

// TestXattrMany: hundreds of attributes, and the values of all of them.
func TestXattrMany(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.create(1, "f")
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1<<(i%17)) }
	for i := range 500 {
		v.ok(v.fs.SetXattr(&v.ctx, ino, fmt.Sprintf("user.attribute %d", i), value(i), fs.XattrCreate))
	}
	v.checked()
	v.ok(v.fs.Ref(&v.ctx, ino, new(fs.Attr)))
	for i := range 500 {
		if got := v.getxattr(ino, fmt.Sprintf("user.attribute %d", i)); !bytes.Equal(got, value(i)) {
			t.Fatalf("attribute %d has %d bytes", i, len(got))
		}
	}
}

func TestXattrErrors(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "f")
	set := func(name string, n int, flags uint32) syscall.Errno {
		return v.fs.SetXattr(&v.ctx, ino, name, make([]byte, n), flags)
	}
	for _, c := range []struct {
		name  string
		n     int
		flags uint32
		want  syscall.Errno
	}{
		{"user.", 1, 0, syscall.EINVAL},
		{"user", 1, 0, syscall.EOPNOTSUPP},
		{"system.posix_acl_access", 1, 0, syscall.EINVAL},
		{"system.posix_acl", 1, 0, syscall.EOPNOTSUPP},
		{"user." + strings.Repeat("x", 251), 1, 0, syscall.ERANGE},
		{"user." + strings.Repeat("x", 250), 1, 0, 0},
		{"user.big", layout.XattrValueMax + 1, 0, syscall.E2BIG},
		{"user.empty", 0, fs.XattrCreate, 0},
		{"user.empty", 0, fs.XattrCreate, syscall.EEXIST},
		{"user.none", 0, fs.XattrReplace, syscall.ENODATA},
		{"user.none", 0, 8, syscall.EINVAL},
	} {
		if e := set(c.name, c.n, c.flags); e != c.want {
			t.Errorf("%.20s %d %d: %v, expected %v", c.name, c.n, c.flags, e, c.want)
		}
	}
	v.ok(set("trusted.t", 5, 0))
	if n, e := v.fs.GetXattr(&v.ctx, ino, "trusted.t", make([]byte, 4)); e != syscall.ERANGE || n != 5 {
		t.Errorf("short buffer: %d, %v", n, e)
	}
	if n, e := v.fs.ListXattr(&v.ctx, ino, make([]byte, 4)); e != syscall.ERANGE || n == 0 {
		t.Errorf("short list: %d, %v", n, e)
	}
	root := v.listxattr(ino)
	v.ctx.UID = 1000
	if names := v.listxattr(ino); len(names) != len(root)-1 {
		t.Errorf("root sees %q, a user %q", root, names)
	}
	v.ctx.UID = 0
}

// TestCapability: a change of content or owner takes security.capability, and nothing
// else, away, also right after a mount.
func TestCapability(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "f")
	v.write(ino, 0, make([]byte, 8192))
	var a fs.Attr
	for name, change := range map[string]func(){
		"overwrite": func() { v.write(ino, 0, []byte("x")) },
		"truncate":  func() { v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 5000}, &a)) },
		"chown":     func() { v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetUID, UID: 7}, &a)) },
		"punch":     func() { v.ok(v.fs.Fallocate(&v.ctx, ino, fs.FallocPunchHole|fs.FallocKeepSize, 0, 4096)) },
	} {
		for _, remount := range []bool{false, true} {
			v.ok(v.fs.SetXattr(&v.ctx, ino, "security.capability", make([]byte, 20), 0))
			v.ok(v.fs.SetXattr(&v.ctx, ino, "user.other", nil, 0))
			if remount {
				v.remount()
				v.ok(v.fs.Ref(&v.ctx, ino, &a))
			}
			change()
			if names := v.listxattr(ino); len(names) != 1 || names[0] != "user.other" {
				t.Errorf("%s leaves %q", name, names)
			}
		}
	}
}

// TestTmpfile: a file without a name can be given one, once; without one it goes.
func TestTmpfile(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	var st fs.StatFS
	v.fs.StatFS(&st)
	var a fs.Attr
	v.ok(v.fs.Tmpfile(&v.ctx, 1, 0o600, &a))
	if a.Nlink != 0 || a.Mode != syscall.S_IFREG|0o600 {
		t.Errorf("%+v", a)
	}
	v.write(a.Ino, 0, make([]byte, 100_000))
	v.fs.Forget(a.Ino, 1)
	var now fs.StatFS
	if v.fs.StatFS(&now); now != st {
		t.Errorf("%+v became %+v", st, now)
	}
	v.ok(v.fs.Tmpfile(&v.ctx, 1, 0o600, &a))
	ino := a.Ino
	v.write(ino, 0, []byte("data"))
	v.ok(v.fs.Link(&v.ctx, ino, 1, "named", &a))
	if a.Nlink != 1 {
		t.Errorf("%+v", a)
	}
	v.checked()
	v.ok(v.fs.Lookup(&v.ctx, 1, "named", &a))
	if got := v.read(ino, 0, 10); string(got) != "data" || a.Ino != ino {
		t.Errorf("%q", got)
	}
	v.ok(v.fs.Unlink(&v.ctx, 1, "named"))
	if e := v.fs.Link(&v.ctx, ino, 1, "again", &a); e != syscall.ENOENT {
		t.Errorf("a deleted file was given a name: %v", e)
	}
}

// TestXattrKept: to read one of thousands of attributes does not mean to read them all, and
// what is kept in DRAM is never older than the media.
func TestXattrKept(t *testing.T) {
	all := 2000
	if testing.Short() {
		all = 600
	}
	v := newVolume(t, 64<<20)
	ino := v.create(1, "f")
	name := func(i int) string { return fmt.Sprintf("user.attribute-%d", i) }
	for i := range all {
		v.ok(v.fs.SetXattr(&v.ctx, ino, name(i), randomBytes(int64(i), 50), 0))
	}
	buf := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() { v.fs.GetXattr(&v.ctx, ino, name(all/2), buf) }); n > 10 {
		t.Errorf("%.0f allocations to read one attribute", n)
	}
	for i := 0; i < all; i += 7 {
		if i%2 == 0 {
			v.ok(v.fs.RemoveXattr(&v.ctx, ino, name(i)))
			if n, e := v.fs.GetXattr(&v.ctx, ino, name(i), buf); e != syscall.ENODATA {
				t.Fatalf("removed attribute %d: %d bytes, %v", i, n, e)
			}
			continue
		}
		want := randomBytes(int64(-i), 60)
		v.ok(v.fs.SetXattr(&v.ctx, ino, name(i), want, fs.XattrReplace))
		want[0]++ // the caller's memory is not kept
		if got := v.getxattr(ino, name(i)); bytes.Equal(got, want) || !bytes.Equal(got[1:], want[1:]) {
			t.Fatalf("attribute %d reads back wrong", i)
		}
	}
	v.remount()
	v.ok(v.fs.Lookup(&v.ctx, 1, "f", new(fs.Attr)))
	for i := range all {
		seed, n := int64(i), 50
		if i%7 == 0 {
			seed, n = int64(-i), 60
		}
		got, e := v.fs.GetXattr(&v.ctx, ino, name(i), buf)
		if gone := i%14 == 0; gone != (e == syscall.ENODATA) || !gone && !bytes.Equal(buf[:got], randomBytes(seed, n)) {
			t.Fatalf("attribute %d: %d bytes, %v", i, got, e)
		}
	}
}

// When a write has returned, the file has no capability any more, whoever was taking it away.
func TestCapabilityIsGoneWhenAWriteReturns(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "f")
	v.write(ino, 0, make([]byte, 8192))
	v.ok(v.fs.SetXattr(&v.ctx, ino, "user.other", make([]byte, 20), 0))
	var left atomic.Int64
	for stop := time.Now().Add(time.Second); time.Now().Before(stop) && left.Load() == 0; {
		v.ok(v.fs.SetXattr(&v.ctx, ino, "security.capability", make([]byte, 20), 0))
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				ctx := fs.Caller{Lane: uint32(w)}
				if _, e := v.fs.Write(&ctx, ino, int64(w)*64, []byte("x")); e != 0 {
					t.Error(e)
				}
				if _, e := v.fs.GetXattr(&ctx, ino, "security.capability", nil); e != syscall.ENODATA {
					left.Add(1)
				}
			})
		}
		wg.Wait()
	}
	if left.Load() > 0 {
		t.Error("a write returned, and the file still had its capability")
	}
}

// A truncation by a stranger takes set-user-ID before it changes the content.
func TestTruncateTakesSetUserID(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "f")
	v.write(ino, 0, make([]byte, 8192))
	var a fs.Attr
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o6755}, &a))
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize | fs.SetKillPriv, Size: 100}, &a))
	if a.Mode&0o7777 != 0o755 || a.Size != 100 {
		t.Errorf("mode %o, size %d", a.Mode, a.Size)
	}
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o4755}, &a))
	if e := v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize | fs.SetKillPriv, Size: 1<<63 - 1}, &a); e != syscall.EFBIG {
		t.Error(e)
	}
}
