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

func (v *volume) listxattr(ino uint64) []string {
	v.Helper()
	n, e := v.FS.ListXattr(&v.Ctx, ino, nil)
	v.OK(e)
	buf := make([]byte, n+1)
	n, e = v.FS.ListXattr(&v.Ctx, ino, buf)
	v.OK(e)
	names := strings.Split(string(buf[:n]), "\x00")
	sort.Strings(names)
	return names[1:] // names[0] is the empty text after the last NUL
}

// TestXattrModel sets and removes random attributes of a file, a directory and a symbolic link, and
// compares them with maps.
func TestXattrModel(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.Free()
	var a fs.Attr
	inos := []uint64{v.Create("/file"), v.Mkdir("/dir"), v.Symlink("/link", "target")}
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
			e := v.FS.RemoveXattr(&v.Ctx, ino, name)
			v.expect(e, !has, syscall.ENODATA)
			delete(m, name)
		case 1:
			value := make([]byte, rnd.Intn(20))
			flags := uint32(1 + rnd.Intn(2))
			e := v.FS.SetXattr(&v.Ctx, ino, name, value, flags)
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
			switch e := v.FS.SetXattr(&v.Ctx, ino, name, value, 0); e {
			case 0:
				m[name] = value
			case syscall.ENOSPC: // the old value stays
				if has {
					m[name] = old
				}
			default:
				t.Fatal(e)
			}
		}
		if rnd.Intn(100) == 0 {
			v.Remount()
			for _, n := range []string{"file", "dir", "link"} {
				v.OK(v.FS.Lookup(&v.Ctx, 1, n, &a))
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
				if got := v.Xattr(inos[k], n); !bytes.Equal(got, m[n]) || m[n] == nil {
					t.Fatalf("%s has %d bytes, expected %d", n, len(got), len(m[n]))
				}
			}
		}
	}
	v.checked()
	v.RemoveAll(1)
	v.Remount()
	if v.Free() != free {
		t.Errorf("%d blocks free at the start, %d at the end", free, v.Free())
	}
}

// checked remounts, and compares the free space before and after.
func (v *volume) checked() {
	v.Helper()
	was := v.Free()
	v.Remount()
	if now := v.Free(); now != was {
		v.Fatalf("%d blocks were free, the mount found %d", was, now)
	}
}

// TestXattrMany sets hundreds of attributes with long values, and reads them all.
func TestXattrMany(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/f")
	value := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1<<(i%17)) }
	for i := range 500 {
		v.OK(v.FS.SetXattr(&v.Ctx, ino, fmt.Sprintf("user.attribute %d", i), value(i), fs.XattrCreate))
	}
	v.checked()
	v.OK(v.FS.Ref(&v.Ctx, ino, new(fs.Attr)))
	for i := range 500 {
		if got := v.Xattr(ino, fmt.Sprintf("user.attribute %d", i)); !bytes.Equal(got, value(i)) {
			t.Fatalf("attribute %d has %d bytes", i, len(got))
		}
	}
}

func TestXattrErrors(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/f")
	set := func(name string, n int, flags uint32) syscall.Errno {
		return v.FS.SetXattr(&v.Ctx, ino, name, make([]byte, n), flags)
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
	v.OK(set("trusted.t", 5, 0))
	if n, e := v.FS.GetXattr(&v.Ctx, ino, "trusted.t", make([]byte, 4)); e != syscall.ERANGE || n != 5 {
		t.Errorf("short buffer: %d, %v", n, e)
	}
	if n, e := v.FS.ListXattr(&v.Ctx, ino, make([]byte, 4)); e != syscall.ERANGE || n == 0 {
		t.Errorf("short list: %d, %v", n, e)
	}
	root := v.listxattr(ino)
	v.Ctx.UID = 1000
	if names := v.listxattr(ino); len(names) != len(root)-1 {
		t.Errorf("root sees %q, a user %q", root, names)
	}
	v.Ctx.UID = 0
}

// TestCapability checks that a change of content or owner removes security.capability and nothing
// else, also right after a mount.
func TestCapability(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 8192))
	var a fs.Attr
	for name, change := range map[string]func(){
		"overwrite": func() { v.Write(ino, 0, []byte("x")) },
		"truncate":  func() { v.Truncate(ino, 5000) },
		"chown":     func() { v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetUID, UID: 7}, &a)) },
		"punch":     func() { v.Fallocate(ino, fs.FallocPunchHole|fs.FallocKeepSize, 0, 4096) },
	} {
		for _, remount := range []bool{false, true} {
			v.SetXattr(ino, "security.capability", make([]byte, 20))
			v.SetXattr(ino, "user.other", nil)
			if remount {
				v.Remount()
				v.OK(v.FS.Ref(&v.Ctx, ino, &a))
			}
			change()
			if names := v.listxattr(ino); len(names) != 1 || names[0] != "user.other" {
				t.Errorf("%s leaves %q", name, names)
			}
		}
	}
}

// TestTmpfile checks that a file without a name can be linked once, and is freed if it is not.
func TestTmpfile(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	var st fs.StatFS
	v.FS.StatFS(&st)
	var a fs.Attr
	v.OK(v.FS.Tmpfile(&v.Ctx, 1, 0o600, &a))
	if a.Nlink != 0 || a.Mode != syscall.S_IFREG|0o600 {
		t.Errorf("%+v", a)
	}
	v.Write(a.Ino, 0, make([]byte, 100_000))
	v.FS.Forget(a.Ino, 1)
	var now fs.StatFS
	if v.FS.StatFS(&now); now != st {
		t.Errorf("%+v became %+v", st, now)
	}
	v.OK(v.FS.Tmpfile(&v.Ctx, 1, 0o600, &a))
	ino := a.Ino
	v.Write(ino, 0, []byte("data"))
	v.OK(v.FS.Link(&v.Ctx, ino, 1, "named", &a))
	if a.Nlink != 1 {
		t.Errorf("%+v", a)
	}
	v.checked()
	v.OK(v.FS.Lookup(&v.Ctx, 1, "named", &a))
	if got := v.Read(ino, 0, 10); string(got) != "data" || a.Ino != ino {
		t.Errorf("%q", got)
	}
	v.Unlink("/named")
	if e := v.FS.Link(&v.Ctx, ino, 1, "again", &a); e != syscall.ENOENT {
		t.Errorf("a deleted file was given a name: %v", e)
	}
}

// TestXattrKept checks that reading one of thousands of attributes does not read them all, and that
// cached values are never older than the media.
func TestXattrKept(t *testing.T) {
	all := 2000
	if testing.Short() {
		all = 600
	}
	v := newVolume(t, 64<<20)
	ino := v.Create("/f")
	name := func(i int) string { return fmt.Sprintf("user.attribute-%d", i) }
	for i := range all {
		v.SetXattr(ino, name(i), randomBytes(int64(i), 50))
	}
	buf := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() { v.FS.GetXattr(&v.Ctx, ino, name(all/2), buf) }); n > 10 {
		t.Errorf("%.0f allocations to read one attribute", n)
	}
	for i := 0; i < all; i += 7 {
		if i%2 == 0 {
			v.OK(v.FS.RemoveXattr(&v.Ctx, ino, name(i)))
			if n, e := v.FS.GetXattr(&v.Ctx, ino, name(i), buf); e != syscall.ENODATA {
				t.Fatalf("removed attribute %d: %d bytes, %v", i, n, e)
			}
			continue
		}
		want := randomBytes(int64(-i), 60)
		v.OK(v.FS.SetXattr(&v.Ctx, ino, name(i), want, fs.XattrReplace))
		want[0]++ // the cache must not keep the caller's memory
		if got := v.Xattr(ino, name(i)); bytes.Equal(got, want) || !bytes.Equal(got[1:], want[1:]) {
			t.Fatalf("attribute %d reads back wrong", i)
		}
	}
	v.Remount()
	v.OK(v.FS.Lookup(&v.Ctx, 1, "f", new(fs.Attr)))
	for i := range all {
		seed, n := int64(i), 50
		if i%7 == 0 {
			seed, n = int64(-i), 60
		}
		got, e := v.FS.GetXattr(&v.Ctx, ino, name(i), buf)
		if gone := i%14 == 0; gone != (e == syscall.ENODATA) || !gone && !bytes.Equal(buf[:got], randomBytes(seed, n)) {
			t.Fatalf("attribute %d: %d bytes, %v", i, got, e)
		}
	}
}

// TestCapabilityIsGoneWhenAWriteReturns checks that a file has no capability after a write has
// returned, even if another write was removing it.
func TestCapabilityIsGoneWhenAWriteReturns(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 8192))
	v.SetXattr(ino, "user.other", make([]byte, 20))
	var left atomic.Int64
	for stop := time.Now().Add(time.Second); time.Now().Before(stop) && left.Load() == 0; {
		v.SetXattr(ino, "security.capability", make([]byte, 20))
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				ctx := fs.Caller{Lane: uint32(w)}
				if _, e := v.FS.Write(&ctx, ino, int64(w)*64, []byte("x")); e != 0 {
					t.Error(e)
				}
				if _, e := v.FS.GetXattr(&ctx, ino, "security.capability", nil); e != syscall.ENODATA {
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

// TestTruncateTakesSetUserID checks that a truncation by another user removes set-user-ID before it
// changes the content.
func TestTruncateTakesSetUserID(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 8192))
	var a fs.Attr
	v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o6755}, &a))
	v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetSize | fs.SetKillPriv, Size: 100}, &a))
	if a.Mode&0o7777 != 0o755 || a.Size != 100 {
		t.Errorf("mode %o, size %d", a.Mode, a.Size)
	}
	v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o4755}, &a))
	if e := v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetSize | fs.SetKillPriv, Size: 1<<63 - 1}, &a); e != syscall.EFBIG {
		t.Error(e)
	}
}
