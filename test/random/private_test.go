package random

import (
	"bytes"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one process of the namespace exerciser.
type process struct {
	dice
	w     int
	root  string // path of its private subtree
	pub   string // path of the shared subtree
	whole bool   // a read sees each write(2) wholly or not at all
	t     *tree
	held  []heldFile
	n     int
	did   string // the current call
	count map[string]int
}

// A heldFile is an open file without a name.
type heldFile struct {
	fd   int
	data []byte
}

// dirOf returns a random directory of the private tree.
func (p *process) dirOf() string {
	l := []string{"."}
	for name, id := range p.t.Names {
		if p.t.Nodes[id].Type == unix.S_IFDIR && strings.Count(name, "/") < 3 {
			l = append(l, name)
		}
	}
	slices.Sort(l) // the order of a map is random, but a seed must repeat the choice
	return l[p.IntN(len(l))]
}

// name returns a name, used or not, in a random directory.
func (p *process) name() string {
	return path.Join(p.dirOf(), fmt.Sprintf("n%d", p.IntN(7)))
}

// some returns a random existing name of one of the types; "" if there is none.
func (p *process) some(types ...uint32) string {
	var l []string
	for name, id := range p.t.Names {
		if slices.Contains(types, p.t.Nodes[id].Type) {
			l = append(l, name)
		}
	}
	if len(l) == 0 {
		return ""
	}
	slices.Sort(l)
	return l[p.IntN(len(l))]
}

func (p *process) full(name string) string { return filepath.Join(p.root, name) }

// want requires that err equals want.
func (p *process) want(err, want error) error {
	if err != want {
		return fmt.Errorf("%v, want %v", err, want)
	}
	return nil
}

// taken returns the error that creating a name must give.
func (p *process) taken(name string) error {
	if p.t.at(name) != nil {
		return unix.EEXIST
	}
	return nil
}

// private makes one call in the private subtree, and verifies the names that the call touched.
func (p *process) private() error {
	p.did = "nothing"
	first, second := p.name(), p.name()
	choice := p.IntN(100)
	var err error
	switch {
	case choice < 12:
		p.did = "create " + first
		err = p.create(first)
	case choice < 20:
		p.did = "mkdir " + first
		want := p.taken(first)
		if err = p.want(do(func() error { return unix.Mkdir(p.full(first), 0o750) }), want); err == nil && want == nil {
			p.t.add(first, &node{Type: unix.S_IFDIR, Mode: 0o750})
		}
	case choice < 24:
		target := strings.Repeat("x/", p.IntN(60)) + fmt.Sprint(p.n)
		p.did = "symlink " + first
		want := p.taken(first)
		if err = p.want(do(func() error { return unix.Symlink(target, p.full(first)) }), want); err == nil && want == nil {
			p.t.add(first, &node{Type: unix.S_IFLNK, Target: target})
		}
	case choice < 30:
		p.did = "link " + first + " " + second
		var want error
		switch {
		case p.t.at(first) == nil:
			want = unix.ENOENT
		case p.t.at(second) != nil:
			want = unix.EEXIST
		case p.t.at(first).Type == unix.S_IFDIR:
			want = unix.EPERM
		}
		if err = p.want(do(func() error { return unix.Link(p.full(first), p.full(second)) }), want); err == nil && want == nil {
			p.t.Names[second] = p.t.Names[first]
		}
	case choice < 38:
		err = p.unlink(first)
	case choice < 42:
		p.did = "rmdir " + first
		var want error
		switch n := p.t.at(first); {
		case n == nil:
			want = unix.ENOENT
		case n.Type != unix.S_IFDIR:
			want = unix.ENOTDIR
		case len(p.t.children(first)) > 0:
			want = unix.ENOTEMPTY
		}
		if err = p.want(do(func() error { return unix.Rmdir(p.full(first)) }), want); err == nil && want == nil {
			p.t.drop(first)
		}
	case choice < 60:
		err = p.rename(first, second)
	case choice < 64:
		err = p.tmpfile(first)
	case choice < 68:
		err = p.useHeld()
	default:
		err = p.change()
	}
	if err != nil {
		return err
	}
	for _, name := range []string{first, second, path.Dir(first), path.Dir(second)} {
		// The directory may have been moved away.
		if dir := path.Dir(name); dir != "." && (p.t.at(dir) == nil || p.t.at(dir).Type != unix.S_IFDIR) {
			continue
		}
		if err := p.t.verify(p.root, name); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) create(a string) error {
	want := p.taken(a)
	fd, err := retry(func() (int, error) {
		return unix.Open(p.full(a), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
	})
	if err := p.want(err, want); err != nil || want != nil {
		return err
	}
	defer unix.Close(fd)
	n := &node{Type: unix.S_IFREG, Mode: 0o640}
	p.t.add(a, n)
	return p.store(fd, n, 0, p.data(p.length(16<<10), p.n))
}

// store writes all of data at byte off, to the file and to its node.
func (p *process) store(fd int, n *node, off int64, data []byte) error {
	k, err := retry(func() (int, error) { return unix.Pwrite(fd, data, off) })
	if err != nil || k != len(data) {
		return fmt.Errorf("pwrite of %d: %d, %w", len(data), k, err)
	}
	n.Mtime = 0
	if end := int(off) + len(data); end > len(n.Data) {
		n.Data = append(n.Data, make([]byte, end-len(n.Data))...)
	}
	copy(n.Data[off:], data)
	return nil
}

// unlink unlinks a file, and keeps some files open.
func (p *process) unlink(a string) error {
	p.did = "unlink " + a
	n := p.t.at(a)
	var want error
	switch {
	case n == nil:
		want = unix.ENOENT
	case n.Type == unix.S_IFDIR:
		want = unix.EISDIR
	}
	if want == nil && n.Type == unix.S_IFREG && p.IntN(2) == 0 && p.t.links(p.t.Names[a]) == 1 {
		fd, err := retry(func() (int, error) { return unix.Open(p.full(a), unix.O_RDWR|unix.O_CLOEXEC, 0) })
		if err != nil {
			return err
		}
		if len(p.held) > 5 {
			_ = unix.Close(p.held[0].fd)
			p.held = p.held[1:]
		}
		p.held = append(p.held, heldFile{fd, n.Data})
	}
	if err := p.want(do(func() error { return unix.Unlink(p.full(a)) }), want); err != nil || want != nil {
		return err
	}
	p.t.drop(a)
	return nil
}

// useHeld reads and writes a file without a name.
func (p *process) useHeld() error {
	if len(p.held) == 0 {
		return nil
	}
	h := &p.held[p.IntN(len(p.held))]
	p.did = "use of an unlinked file"
	var st unix.Stat_t
	if err := do(func() error { return unix.Fstat(h.fd, &st) }); err != nil || st.Nlink != 0 || st.Size != int64(len(h.data)) {
		return fmt.Errorf("%v, %d links, %d bytes, want %d", err, st.Nlink, st.Size, len(h.data))
	}
	b := make([]byte, len(h.data)+1)
	k, err := retry(func() (int, error) { return unix.Pread(h.fd, b, 0) })
	if err != nil || !bytes.Equal(b[:k], h.data) {
		return fmt.Errorf("%v: %s", err, differs(0, b[:max(k, 0)], h.data))
	}
	n := &node{Data: h.data}
	err = p.store(h.fd, n, p.Int64N(int64(len(h.data))+1), p.data(p.length(8<<10), p.n))
	h.data = n.Data
	return err
}

// tmpfile creates a file without a name, writes it and links it at a.
func (p *process) tmpfile(a string) error {
	p.did = "O_TMPFILE and link to " + a
	fd, err := retry(func() (int, error) {
		return unix.Open(p.full(path.Dir(a)), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n := &node{Type: unix.S_IFREG, Mode: 0o600}
	if err := p.store(fd, n, 0, p.data(p.length(16<<10), p.n)); err != nil {
		return err
	}
	want := p.taken(a)
	err = do(func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, p.full(a), unix.AT_SYMLINK_FOLLOW)
	})
	if err := p.want(err, want); err != nil || want != nil {
		return err
	}
	p.t.add(a, n)
	return nil
}

func (p *process) rename(old, into string) error {
	flags := []uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, unix.RENAME_WHITEOUT | unix.RENAME_NOREPLACE}[p.IntN(6)]
	p.did = fmt.Sprintf("rename %s %s, flags %d", old, into, flags)
	from, to := p.t.at(old), p.t.at(into)
	var want error
	switch {
	case from == nil:
		want = unix.ENOENT
	case flags&unix.RENAME_NOREPLACE != 0 && to != nil:
		want = unix.EEXIST
	case flags == unix.RENAME_EXCHANGE && to == nil:
		want = unix.ENOENT
	case strings.HasPrefix(into, old+"/"):
		want = unix.EINVAL
	case strings.HasPrefix(old, into+"/") && flags == unix.RENAME_EXCHANGE:
		want = unix.EINVAL
	case strings.HasPrefix(old, into+"/"):
		want = unix.ENOTEMPTY
	case from == to || flags == unix.RENAME_EXCHANGE || to == nil:
	case from.Type == unix.S_IFDIR && to.Type != unix.S_IFDIR:
		want = unix.ENOTDIR
	case from.Type != unix.S_IFDIR && to.Type == unix.S_IFDIR:
		want = unix.EISDIR
	case to.Type == unix.S_IFDIR && len(p.t.children(into)) > 0:
		want = unix.ENOTEMPTY
	}
	err := do(func() error { return unix.Renameat2(unix.AT_FDCWD, p.full(old), unix.AT_FDCWD, p.full(into), flags) })
	if err := p.want(err, want); err != nil || want != nil || from == to {
		return err
	}
	if flags == unix.RENAME_EXCHANGE {
		const aside = "aside"
		p.t.move(old, aside)
		p.t.move(into, old)
		p.t.move(aside, into)
		return nil
	}
	if to != nil {
		p.t.drop(into)
	}
	p.t.move(old, into)
	if flags&unix.RENAME_WHITEOUT != 0 {
		p.t.add(old, &node{Type: unix.S_IFCHR})
	}
	return nil
}

// change changes an existing inode.
func (p *process) change() error {
	name := p.some(unix.S_IFREG, unix.S_IFREG, unix.S_IFDIR)
	if name == "" {
		return nil
	}
	n, full := p.t.at(name), p.full(name)
	var err error
	switch choice := p.IntN(9); {
	case choice == 0:
		p.did = "chmod " + name
		mode := uint32(p.IntN(0o1000)) | 0o600
		if n.Type == unix.S_IFDIR {
			mode |= 0o100
		}
		err = do(func() error { return unix.Chmod(full, mode) })
		n.Mode = mode
	case choice == 1:
		p.did = "chown " + name
		uid, gid := p.IntN(3)*1000, p.IntN(3)*1000
		err = do(func() error { return unix.Lchown(full, uid, gid) })
		n.UID, n.GID = uid, gid
	case choice == 2:
		p.did = "utimens " + name
		mtime := time.Now().Unix() - 1 - p.Int64N(1e9)
		times := []unix.Timespec{{Sec: mtime - 5}, {Sec: mtime, Nsec: 7}}
		err = do(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, full, times, unix.AT_SYMLINK_NOFOLLOW) })
		if n.Type == unix.S_IFREG { // a change of names sets a directory's mtime
			n.Mtime = mtime
		}
	case choice <= 4:
		err = p.xattr(n, name)
	case n.Type == unix.S_IFDIR:
		return nil
	case choice == 5:
		p.did = "truncate " + name
		to := p.Int64N(24 << 10)
		err = do(func() error { return unix.Truncate(full, to) })
		n.Mtime = 0
		if old := int64(len(n.Data)); to > old {
			n.Data = append(n.Data, make([]byte, to-old)...)
		}
		n.Data = n.Data[:to:to]
	default:
		p.did = "write " + name
		fd, openErr := retry(func() (int, error) { return unix.Open(full, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
		if openErr != nil {
			return openErr
		}
		defer unix.Close(fd)
		err = p.store(fd, n, p.Int64N(int64(len(n.Data))+100), p.data(p.length(8<<10), p.n))
	}
	if err != nil {
		return err
	}
	return p.t.verify(p.root, name)
}

func (p *process) xattr(n *node, a string) error {
	name, full := fmt.Sprintf("user.x%d", p.IntN(5)), p.full(a)
	_, there := n.Xattr[name]
	var want error
	if p.IntN(3) == 0 {
		p.did = "removexattr " + name + " of " + a
		if !there {
			want = unix.ENODATA
		}
		if err := p.want(do(func() error { return unix.Removexattr(full, name) }), want); err != nil {
			return err
		}
		delete(n.Xattr, name)
		return nil
	}
	flags := p.IntN(3) // 0, XATTR_CREATE, XATTR_REPLACE
	p.did = fmt.Sprintf("setxattr %s of %s, flags %d", name, a, flags)
	switch {
	case flags == unix.XATTR_CREATE && there:
		want = unix.EEXIST
	case flags == unix.XATTR_REPLACE && !there:
		want = unix.ENODATA
	}
	value := slices.Clone(p.data(p.length(400), p.n))
	if err := p.want(do(func() error { return unix.Setxattr(full, name, value, flags) }), want); err != nil || want != nil {
		return err
	}
	if n.Xattr == nil {
		n.Xattr = map[string][]byte{}
	}
	n.Xattr[name] = value
	return nil
}
