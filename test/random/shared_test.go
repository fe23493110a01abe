package random

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// recordSize is the length in bytes of every content in the shared tree. It fits one page and one
// request.
const recordSize = 1000

// record returns a content that names its writer and shows that it is whole (offset, length,
// meaning):
//
//	0  4   crc32 of the rest
//	4  4   process
//	8  8   number
//	16 984 bytes that follow from process and number
func record(w, n int) []byte {
	b := make([]byte, recordSize)
	binary.LittleEndian.PutUint32(b[4:], uint32(w))
	binary.LittleEndian.PutUint64(b[8:], uint64(n))
	rng := rand.New(rand.NewPCG(uint64(w), uint64(n)))
	for o := 16; o < recordSize; o += 8 {
		binary.LittleEndian.PutUint64(b[o:], rng.Uint64())
	}
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	return b
}

// checkRecord accepts an empty content and a whole record of any process.
func checkRecord(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) != recordSize {
		return fmt.Errorf("a content of %d bytes", len(b))
	}
	if crc32.ChecksumIEEE(b[4:]) != binary.LittleEndian.Uint32(b) {
		return fmt.Errorf("a content that no process wrote: process %d, number %d: %s", binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:]),
			differs(0, b, record(int(binary.LittleEndian.Uint32(b[4:])), int(binary.LittleEndian.Uint64(b[8:])))))
	}
	return nil
}

// walked lists the errors that any path in the shared tree may give, since other processes rename
// directories and symbolic links in it.
var walked = []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP}

// allowed requires success, or an error that calls of other processes explain.
func allowed(err error, more ...error) error {
	if err == nil || slices.Contains(walked, err) || slices.Contains(more, err) {
		return nil
	}
	return fmt.Errorf("unexpected: %w", err)
}

// sharedName returns one of a few names in the shared tree.
func (p *process) sharedName() string {
	name := p.pub
	for p.IntN(2) == 0 {
		name = path.Join(name, fmt.Sprintf("d%d", p.IntN(3)))
	}
	if p.IntN(4) == 0 {
		return path.Join(name, fmt.Sprintf("d%d", p.IntN(3)))
	}
	return path.Join(name, string(rune('a'+p.IntN(6))))
}

// open opens a file of the shared tree and calls f. It returns nil without a call if the file is
// not there or not a regular file.
func (p *process) open(name string, flags int, f func(fd int) error) error {
	fd, err := retry(func() (int, error) { return unix.Open(name, flags|unix.O_CLOEXEC, 0o666) })
	if err != nil {
		return allowed(err, unix.EEXIST, unix.EISDIR, unix.ENXIO)
	}
	defer unix.Close(fd)
	return f(fd)
}

// put writes a record of this process.
func (p *process) put(fd int) error {
	k, err := retry(func() (int, error) { return unix.Pwrite(fd, record(p.w, p.n), 0) })
	if err != nil || k != recordSize {
		return fmt.Errorf("pwrite: %d, %w", k, err)
	}
	return nil
}

// get reads a record of any process.
func (p *process) get(fd int) error {
	var st unix.Stat_t
	if err := do(func() error { return unix.Fstat(fd, &st) }); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	b := make([]byte, recordSize+1)
	for tries := 0; ; tries++ {
		k, err := retry(func() (int, error) { return unix.Pread(fd, b, 0) })
		if err != nil {
			return err
		}
		// While a file is truncated, the daemon already answers a read with no bytes. FUSE fills
		// the uncached page with zeros, and shows as much of the page as the file had before
		// (docs/compatibility.md). It drops the page when the truncation returns.
		if !p.whole && k == recordSize && isZero(b[:k]) && tries < 100 {
			time.Sleep(time.Millisecond)
			continue
		}
		return checkRecord(b[:k])
	}
}

// public makes one call in the shared subtree.
func (p *process) public() error {
	p.did = "nothing"
	path1, path2 := p.sharedName(), p.sharedName()
	call := func(name string, attempt func() error, more ...error) error {
		p.did = name
		return allowed(do(attempt), more...)
	}
	switch p.IntN(24) {
	case 0, 1, 2:
		p.did = "create " + path1
		return p.open(path1, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, p.put)
	case 3:
		if !p.whole {
			return nil
		}
		p.did = "write " + path1
		return p.open(path1, unix.O_CREAT|unix.O_WRONLY, p.put)
	case 4, 5, 6:
		p.did = "read " + path1
		return p.open(path1, unix.O_RDONLY, p.get)
	case 7, 8:
		return call("mkdir "+path1, func() error { return unix.Mkdir(path1, 0o777) }, unix.EEXIST)
	case 9:
		return call("symlink "+path1, func() error { return unix.Symlink(filepath.Base(path2), path1) }, unix.EEXIST)
	case 10, 11:
		return call("link "+path1+" "+path2, func() error { return unix.Link(path1, path2) }, unix.EEXIST, unix.EPERM)
	case 12:
		return call("unlink "+path1, func() error { return unix.Unlink(path1) }, unix.EISDIR)
	case 13:
		return call("rmdir "+path1, func() error { return unix.Rmdir(path1) }, unix.ENOTEMPTY)
	case 14, 15, 16:
		flags := []uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT}[p.IntN(6)]
		return call(fmt.Sprintf("rename %s %s, flags %d", path1, path2, flags), func() error { return unix.Renameat2(unix.AT_FDCWD, path1, unix.AT_FDCWD, path2, flags) },
			unix.EEXIST, unix.EINVAL, unix.ENOTEMPTY, unix.EISDIR)
	case 17:
		return call("chmod "+path1, func() error { return unix.Chmod(path1, 0o700|uint32(p.IntN(0o100))) })
	case 18:
		return call("chown "+path1, func() error { return unix.Lchown(path1, p.IntN(3), p.IntN(3)) })
	case 19:
		return call("utimens "+path1, func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, path1, []unix.Timespec{{Sec: p.Int64N(1e9)}, {Sec: p.Int64N(1e9)}}, unix.AT_SYMLINK_NOFOLLOW)
		})
	case 20:
		name := fmt.Sprintf("user.s%d", p.IntN(3))
		if p.IntN(2) == 0 {
			return call("removexattr "+path1, func() error { return unix.Removexattr(path1, name) }, unix.ENODATA, unix.EPERM)
		}
		value := slices.Clone(p.data(p.length(200), p.n))
		return call("setxattr "+path1, func() error { return unix.Setxattr(path1, name, value, 0) }, unix.EPERM)
	case 21:
		p.did = "readdir " + path.Dir(path1)
		names, err := list(path.Dir(path1))
		for _, n := range names {
			if len(n) > 2 || n[0] < 'a' || n[0] > 'f' {
				return fmt.Errorf("a name that no process made: %q", n)
			}
		}
		return allowed(err)
	case 22:
		return call("truncate "+path1, func() error { return unix.Truncate(path1, 0) }, unix.EISDIR, unix.EINVAL)
	default:
		return p.publish(path1, path2)
	}
}

// publish writes a file and then gives it a name in the shared tree, by link and by rename.
func (p *process) publish(a, b string) error {
	p.did = "O_TMPFILE and link to " + a
	err := p.open(path.Dir(a), unix.O_TMPFILE|unix.O_RDWR, func(fd int) error {
		if err := p.put(fd); err != nil {
			return err
		}
		// ENOENT: the directory of the file or of the name is gone.
		return allowed(do(func() error {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, a, unix.AT_SYMLINK_FOLLOW)
		}), unix.EEXIST)
	})
	if err != nil {
		return err
	}
	p.did = "write a file and rename it to " + b
	tmp := p.root + ".new"
	if err := p.open(tmp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, p.put); err != nil {
		return err
	}
	if err := allowed(do(func() error { return unix.Rename(tmp, b) }), unix.EISDIR); err != nil {
		return err
	}
	if err := do(func() error { return unix.Unlink(tmp) }); err != nil && err != unix.ENOENT {
		return err
	}
	return nil
}
