package fs_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// aclText encodes an access control list, such as "u::rw-,u:5:r--,g::r--,m::rw-,o::---", as the
// attribute's value.
func aclText(text string) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range strings.Split(text, ",") {
		f := strings.Split(e, ":")
		tag := map[string]uint16{"u": 1, "g": 4, "m": 0x10, "o": 0x20, "x": 0x40}[f[0]]
		id := uint32(1<<32 - 1)
		if f[1] != "" {
			tag *= 2
			fmt.Sscan(f[1], &id)
		}
		perm := uint16(0)
		for i, c := range "rwx" {
			if rune(f[2][i]) == c {
				perm |= 4 >> i
			}
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

func aclString(b []byte) string {
	var s []string
	for b = b[4:]; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), ""
		if tag == 2 || tag == 8 {
			id = fmt.Sprint(binary.LittleEndian.Uint32(b[4:]))
		}
		p := []byte("rwx")
		for i := range p {
			if perm&(4>>i) == 0 {
				p[i] = '-'
			}
		}
		s = append(s, map[uint16]string{1: "u", 2: "u", 4: "g", 8: "g", 0x10: "m", 0x20: "o"}[tag]+":"+id+":"+string(p))
	}
	return strings.Join(s, ",")
}

// list returns an inode's access control list as text; "" means that it has none.
func (v *volume) list(ino uint64, name string) string {
	v.Helper()
	buf := make([]byte, 65536)
	n, e := v.FS.GetXattr(&v.Ctx, ino, name, buf)
	if e == syscall.ENODATA {
		return ""
	}
	v.OK(e)
	return aclString(buf[:n])
}

func (v *volume) mode(ino uint64) uint32 {
	v.Helper()
	return v.Stat(ino).Mode & 0o7777
}

// TestACLAndMode checks that a list and the mode agree, whichever of them is set.
func TestACLAndMode(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/f")
	set := func(text string) { t.Helper(); v.SetXattr(ino, aclAccess, aclText(text)) }
	is := func(mode uint32, text string) {
		t.Helper()
		if m, l := v.mode(ino), v.list(ino, aclAccess); m != mode || l != text {
			t.Errorf("mode %o, list %s; expected %o, %s", m, l, mode, text)
		}
	}
	chmod := func(mode uint32) {
		t.Helper()
		var a fs.Attr
		v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetMode, Mode: mode}, &a))
	}
	set("u::rw-,g::r--,o::---") // equivalent to a mode
	is(0o640, "")
	set("u::rwx,u:5:rw-,g::r-x,g:7:-w-,m::rw-,o::--x")
	is(0o761, "u::rwx,u:5:rw-,g::r-x,g:7:-w-,m::rw-,o::--x")
	chmod(0o4450)
	is(0o4450, "u::r--,u:5:rw-,g::r-x,g:7:-w-,m::r-x,o::---")
	v.Remount()
	is(0o4450, "u::r--,u:5:rw-,g::r-x,g:7:-w-,m::r-x,o::---")
	set("u::rw-,g::rw-,m::r--,o::---") // the mask is not needed, and kept
	is(0o4640, "u::rw-,g::rw-,m::r--,o::---")
	chmod(0o600)
	is(0o600, "u::rw-,g::rw-,m::---,o::---")
	chmod(0o2770)
	v.OK(v.FS.SetXattr(&v.Ctx, ino, aclAccess, aclText("u::rwx,g::rwx,m::rwx,o::---"), fs.XattrKillSGID))
	is(0o770, "u::rwx,g::rwx,m::rwx,o::---")
	v.OK(v.FS.RemoveXattr(&v.Ctx, ino, aclAccess))
	is(0o770, "")
	var many []string
	for i := range 900 {
		many = append(many, fmt.Sprintf("u:%d:r--", i))
	}
	long := "u::rw-," + strings.Join(many, ",") + ",g::---,m::r--,o::---"
	set(long)
	is(0o640, long)
	chmod(0o660)
	is(0o660, strings.Replace(long, "m::r--", "m::rw-", 1))
	v.SetXattr(ino, aclAccess, []byte{2, 0, 0, 0}) // no entries: the list is removed
	is(0o660, "")
}

// TestACLInherited checks that new inodes take the directory's default list instead of the umask.
func TestACLInherited(t *testing.T) {
	const def = "u::rwx,u:5:rwx,g::r-x,m::rwx,o::r-x"
	for _, c := range []struct {
		name        string
		def         string
		mode, umask uint32
		want        uint32
		access      string
	}{
		{"no list", "", 0o666, 0o027, 0o640, ""},
		{"umask is not asked", "u::rwx,g::rwx,o::rwx", 0o666, 0o077, 0o666, ""},
		{"list that a mode can say", "u::rwx,g::r-x,o::---", 0o666, 0, 0o640, ""},
		{"named user", def, 0o666, 0o077, 0o664, "u::rw-,u:5:rwx,g::r-x,m::rw-,o::r--"},
		{"mode 0600", def, 0o600, 0, 0o600, "u::rw-,u:5:rwx,g::r-x,m::---,o::---"},
		{"special bits stay", def, 0o4755, 0, 0o4755, "u::rwx,u:5:rwx,g::r-x,m::r-x,o::r-x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newVolume(t, fs.MinSize)
			free := v.Free()
			d := v.Mkdir("/d")
			if c.def != "" {
				v.SetXattr(d, aclDefault, aclText(c.def))
			}
			v.Ctx.Umask = c.umask
			var a fs.Attr
			v.OK(v.FS.Mknod(&v.Ctx, d, "f", c.mode, 0, &a))
			for range 2 {
				if m, l := v.mode(a.Ino), v.list(a.Ino, aclAccess); m != c.want || l != c.access {
					t.Errorf("file: mode %o, list %s; expected %o, %s", m, l, c.want, c.access)
				}
				v.Remount()
				v.OK(v.FS.Lookup(&v.Ctx, 1, "d", &a))
				v.OK(v.FS.Lookup(&v.Ctx, d, "f", &a))
			}
			if l := v.list(a.Ino, aclDefault); l != "" {
				t.Errorf("a file has the default list %s", l)
			}
			v.FS.Forget(a.Ino, 1)
			v.OK(v.FS.Tmpfile(&v.Ctx, d, c.mode, &a))
			if m, l := v.mode(a.Ino), v.list(a.Ino, aclAccess); m != c.want || l != c.access {
				t.Errorf("nameless file: mode %o, list %s; expected %o, %s", m, l, c.want, c.access)
			}
			v.FS.Forget(a.Ino, 1)
			v.OK(v.FS.Mkdir(&v.Ctx, d, "sub", c.mode, &a))
			if m, l, def := v.mode(a.Ino), v.list(a.Ino, aclAccess), v.list(a.Ino, aclDefault); m != c.want || l != c.access || def != c.def {
				t.Errorf("directory: mode %o, list %s, default %s; expected %o, %s, %s", m, l, def, c.want, c.access, c.def)
			}
			v.FS.Forget(a.Ino, 1)
			v.OK(v.FS.Symlink(&v.Ctx, d, "l", "target", &a))
			if m, l := v.mode(a.Ino), v.list(a.Ino, aclAccess); m != 0o777 || l != "" {
				t.Errorf("symbolic link: mode %o, list %s", m, l)
			}
			v.FS.Forget(a.Ino, 1)
			v.Unlink("/d/l")
			v.Unlink("/d/f")
			v.Rmdir("/d/sub")
			v.FS.Forget(d, 1)
			v.Rmdir("/d")
			if got := v.Free(); got != free {
				t.Errorf("%d blocks are free with everything deleted, before: %d", got, free)
			}
		})
	}
}

func TestACLErrors(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	f, d, l := v.Create("/f"), v.Mkdir("/d"), v.Symlink("/l", "target")
	good := aclText("u::rw-,u:5:r--,g::r--,m::r--,o::---")
	for _, c := range []struct {
		ino   uint64
		name  string
		value []byte
		want  syscall.Errno
	}{
		{f, aclAccess, nil, syscall.EINVAL},
		{f, aclAccess, []byte{2, 0, 0}, syscall.EINVAL},
		{f, aclAccess, good[:len(good)-1], syscall.EINVAL},
		{f, aclAccess, append([]byte{1, 0, 0, 0}, good[4:]...), syscall.EOPNOTSUPP},
		{f, aclAccess, aclText("u::rw-,g::r--"), syscall.EINVAL},                       // no others
		{f, aclAccess, aclText("u::rw-,o::r--"), syscall.EINVAL},                       // no group
		{f, aclAccess, aclText("g::r--,o::r--"), syscall.EINVAL},                       // no owner
		{f, aclAccess, aclText("u::rw-,u:5:r--,g::r--,o::---"), syscall.EINVAL},        // no mask
		{f, aclAccess, aclText("u::rw-,g::r--,g:5:r--,o::---"), syscall.EINVAL},        // no mask
		{f, aclAccess, aclText("u::rw-,g::r--,u:5:r--,m::r--,o::---"), syscall.EINVAL}, // order
		{f, aclAccess, aclText("u::rw-,u::rw-,g::r--,o::---"), syscall.EINVAL},         // twice
		{f, aclAccess, aclText("u::rw-,g::r--,o::---,o::---"), syscall.EINVAL},         // twice
		{f, aclAccess, aclText("u::rw-,g::r--,x::r--,m::r--,o::---"), syscall.EINVAL},  // tag
		{f, aclAccess, append(aclText("u::rw-,g::r--"), 0x20, 0, 8, 0, 255, 255, 255, 255), syscall.EINVAL},
		{f, aclDefault, good, syscall.EACCES},
		{f, aclDefault, []byte{2, 0, 0, 0}, 0},
		{d, aclDefault, good, 0},
		{l, aclAccess, good, syscall.EOPNOTSUPP},
		{f, aclAccess, good, 0},
	} {
		if e := v.FS.SetXattr(&v.Ctx, c.ino, c.name, c.value, 0); e != c.want {
			t.Errorf("%d %s %x: %v, expected %v", c.ino, c.name, c.value, e, c.want)
		}
	}
	v.OK(v.FS.RemoveXattr(&v.Ctx, f, aclDefault)) // a file has no default list
	if n := v.listxattr(f); len(n) != 1 || n[0] != aclAccess {
		t.Errorf("listxattr: %q", n)
	}
}

// TestACLNoSpace checks that a mkdir which finds no space for the inherited list changes nothing.
func TestACLNoSpace(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	d := v.Mkdir("/d")
	var many []string
	for i := range 900 {
		many = append(many, fmt.Sprintf("u:%d:r--", i))
	}
	v.SetXattr(d, aclDefault, aclText("u::rw-,"+strings.Join(many, ",")+",g::---,m::r--,o::---"))
	fill, off := v.Create("/fill"), int64(0)
	for n := int64(fs.MinSize); n >= 4096; {
		if v.FS.Fallocate(&v.Ctx, fill, fs.FallocKeepSize, off, n) == 0 {
			off += n
		} else {
			n /= 2
		}
	}
	free := v.Free()
	var a fs.Attr
	v.expect(v.FS.Mkdir(&v.Ctx, d, "sub", 0o777, &a), true, syscall.ENOSPC)
	v.expect(v.FS.Lookup(&v.Ctx, d, "sub", &a), true, syscall.ENOENT)
	if got := v.Free(); got != free {
		t.Errorf("%d blocks are free after a mkdir that failed, before: %d", got, free)
	}
}

// TestWhiteoutInheritsLongList checks that a whiteout inherits its directory's default list once,
// even if the list is stored in blocks.
func TestWhiteoutInheritsLongList(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.Free()
	d := v.Mkdir("/d")
	var many []string
	for i := range 140 {
		many = append(many, fmt.Sprintf("u:%d:r--", i))
	}
	v.SetXattr(d, aclDefault, aclText("u::rw-,"+strings.Join(many, ",")+",g::---,m::r--,o::---"))
	f := v.Create("/d/f")
	v.OK(v.FS.Rename(&v.Ctx, d, "f", 1, "g", fs.RenameWhiteout))
	var a fs.Attr
	v.OK(v.FS.Lookup(&v.Ctx, d, "f", &a))
	if l := v.list(a.Ino, aclAccess); !strings.Contains(l, "u:139:r--") {
		t.Errorf("the whiteout's list: %q", l)
	}
	v.FS.Forget(a.Ino, 1)
	v.FS.Forget(f, 1)
	v.Unlink("/g")
	v.Unlink("/d/f")
	v.Rmdir("/d")
	v.FS.Forget(d, 1)
	if got := v.Free(); got != free {
		t.Errorf("%d blocks are free at the end, %d before", got, free)
	}
}

// TestDefaultACLKeepsSetGroupID checks that only the access list removes set-group-ID, as in ext4.
// FUSE sends FUSE_SETXATTR_ACL_KILL_SGID with either list.
func TestDefaultACLKeepsSetGroupID(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	d := v.Mkdir("/d")
	var a fs.Attr
	v.OK(v.FS.SetAttr(&v.Ctx, d, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o2775}, &a))
	v.OK(v.FS.SetXattr(&v.Ctx, d, aclDefault, aclText("u::rwx,u:5:rwx,g::rwx,m::rwx,o::r-x"), fs.XattrKillSGID))
	if m := v.mode(d); m&syscall.S_ISGID == 0 {
		t.Errorf("mode %o", m)
	}
	v.OK(v.FS.SetXattr(&v.Ctx, d, aclAccess, aclText("u::rwx,u:5:rwx,g::rwx,m::rwx,o::r-x"), fs.XattrKillSGID))
	if m := v.mode(d); m&syscall.S_ISGID != 0 {
		t.Errorf("mode %o after a list of access", m)
	}
}
