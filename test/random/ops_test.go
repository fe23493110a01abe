package random

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// kinds lists the operations of the file exerciser. An operation is chosen in proportion to its
// weight.
var kinds = []struct {
	name   string
	weight int
	do     func(r *run, f *file)
}{
	{"read", 16, (*run).read},
	{"write", 16, (*run).write},
	{"append", 3, (*run).append},
	{"mapread", 8, (*run).mapRead},
	{"mapwrite", 8, (*run).mapWrite},
	{"map", 3, (*run).mapIt},
	{"unmap", 2, (*run).unmap},
	{"msync", 2, (*run).msync},
	{"truncate", 4, (*run).truncate},
	{"fallocate", 5, (*run).fallocate},
	{"punch", 4, (*run).punch},
	{"zero", 4, (*run).zeroRange},
	{"copy", 6, (*run).copy},
	{"seek", 3, (*run).seek},
	{"sync", 3, (*run).sync},
	{"open", 2, (*run).reopen},
	{"close", 2, (*run).closeOne},
	{"names", 2, (*run).names},
	{"stat", 3, func(r *run, f *file) { r.note("stat %s", r.id(f)); r.stat(f, false) }},
}

var kindSum = func() (sum int) {
	for _, k := range kinds {
		sum += k.weight
	}
	return sum
}()

// step does one operation.
func (r *run) step() {
	f := r.files[r.IntN(len(r.files))]
	if f.orphan > 0 {
		if f.orphan--; f.orphan == 0 {
			r.note("the end of %s, which has no name", r.id(f))
			f.orphan = 1
			r.whole(f)
			r.closeFile(f)
			r.create(f)
			return
		}
	}
	x := r.IntN(kindSum)
	for _, k := range kinds {
		if x -= k.weight; x < 0 {
			r.count[k.name]++
			start := time.Now()
			k.do(r, f)
			r.wait[k.name] += time.Since(start)
			return
		}
	}
}

func (r *run) id(f *file) string { return filepath.Base(f.name) }

// handle returns one of the file's handles, and its description for a note.
func (r *run) handle(f *file) (handle, string) {
	i := r.IntN(len(f.handles))
	s := fmt.Sprintf("%s fd %d", r.id(f), f.handles[i].fd)
	if f.handles[i].flags&unix.O_DIRECT != 0 {
		s += " O_DIRECT"
	}
	if f.handles[i].flags&unix.O_APPEND != 0 {
		s += " O_APPEND"
	}
	return f.handles[i], s
}

// before is called before a call that reads a file other than through a mapping.
func (r *run) before(f *file) {
	if *msyncFirst {
		r.writeBack(f)
	}
}

// writeBack writes back the stores of mappings. st_blocks does not count them before, since FUSE
// does not write back for stat.
func (r *run) writeBack(f *file) {
	if !f.dirty {
		return
	}
	for _, h := range f.handles {
		r.ok(do(func() error { return unix.Fdatasync(h.fd) }), "fdatasync")
		f.dirty = false
		return
	}
}

// split cuts a buffer into parts for preadv and pwritev.
func (r *run) split(b []byte) (parts [][]byte) {
	for len(b) > 1 && len(parts) < 5 {
		n := 1 + r.IntN(len(b)-1)
		parts, b = append(parts, b[:n]), b[n:]
	}
	return append(parts, b)
}

func (r *run) read(f *file) {
	r.before(f)
	h, s := r.handle(f)
	off := r.offset(f.size(), r.max)
	n := r.length(r.max)
	if h.flags&unix.O_DIRECT != 0 {
		off, n = off&^(page-1), (n+page-1)&^(page-1)
	}
	vec := h.flags&unix.O_DIRECT == 0 && r.IntN(4) == 0
	r.note("read %s: %d at %d of %d, vector %v", s, n, off, f.size(), vec)
	b := r.buf[:n]
	if h.flags&unix.O_DIRECT == 0 { // a buffer of any alignment
		at := r.Int64N(page)
		b = r.buf[at : at+n]
	}
	want := f.model[min(off, f.size()):min(off+n, f.size())]
	var got int
	var err error
	switch {
	case vec:
		parts := r.split(b)
		got, err = retry(func() (int, error) { return unix.Preadv(h.fd, parts, off) })
	case r.IntN(4) == 0:
		_, err = unix.Seek(h.fd, off, unix.SEEK_SET)
		r.ok(err, "lseek")
		got, err = retry(func() (int, error) { return unix.Read(h.fd, b) })
	default:
		got, err = retry(func() (int, error) { return unix.Pread(h.fd, b, off) })
	}
	r.ok(err, "read")
	if got != len(want) && (got == 0 || got%page != 0) { // a short read may only end at a page border
		r.failf("read %d bytes, want %d", got, len(want))
	}
	if d := differs(off, b[:got], want[:got]); d != "" {
		r.failf("read: %s", d)
	}
}

func (r *run) write(target *file) {
	r.before(target)
	handle, desc := r.handle(target)
	off := r.offset(target.size(), r.max-page)
	n := r.length(r.max - off)
	if handle.flags&unix.O_APPEND != 0 {
		off = target.size()
		if n = min(n, r.max-off); n <= 0 {
			return
		}
	}
	if handle.flags&unix.O_DIRECT != 0 {
		off, n = off&^(page-1), (n+page-1)&^(page-1)
		if n = min(n, r.max-off); n <= 0 || n%page != 0 || handle.flags&unix.O_APPEND != 0 && target.size()%page != 0 {
			return
		}
	}
	data := r.data(n, r.n)
	shift := int64(0)
	if handle.flags&unix.O_DIRECT == 0 {
		shift = r.Int64N(page)
	}
	buf := r.buf[shift : shift+n]
	copy(buf, data)
	vec := handle.flags&unix.O_DIRECT == 0 && r.IntN(4) == 0
	seek := r.IntN(4) == 0
	r.note("write %s: %d at %d of %d, vector %v", desc, n, off, target.size(), vec)
	for done := int64(0); done < n; {
		var got int
		var err error
		switch {
		case vec:
			parts := r.split(buf[done:])
			got, err = retry(func() (int, error) { return unix.Pwritev(handle.fd, parts, off+done) })
		case seek:
			_, err = unix.Seek(handle.fd, off+done, unix.SEEK_SET)
			r.ok(err, "lseek")
			got, err = retry(func() (int, error) { return unix.Write(handle.fd, buf[done:]) })
		default:
			got, err = retry(func() (int, error) { return unix.Pwrite(handle.fd, buf[done:], off+done) })
		}
		r.ok(err, "write")
		if got <= 0 {
			r.failf("write returned %d", got)
		}
		done += int64(got)
	}
	target.put(off, buf)
}

// append opens the file with O_APPEND for one write.
func (r *run) append(f *file) {
	if f.orphan > 0 {
		return
	}
	n := min(r.length(r.max/16), r.max-f.size())
	if n <= 0 {
		return
	}
	r.before(f)
	r.note("append to %s: %d at %d", r.id(f), n, f.size())
	r.open(f, unix.O_WRONLY|unix.O_APPEND)
	last := len(f.handles) - 1
	h := f.handles[last]
	f.handles = f.handles[:last]
	data := r.data(n, r.n)
	for b := data; len(b) > 0; {
		got, err := retry(func() (int, error) { return unix.Write(h.fd, b) })
		r.ok(err, "append")
		b = b[got:]
	}
	r.ok(unix.Close(h.fd), "close")
	f.put(f.size(), data)
}

// mapIt adds a mapping of a part of the file.
func (r *run) mapIt(f *file) {
	if f.size() == 0 || len(f.maps) >= 3 {
		return
	}
	h, s := r.handle(f)
	off := r.Int64N(f.size()) &^ (page - 1)
	n := min(r.length(r.max)+4*page, f.size()-off)
	r.note("mmap %s: %d at %d of %d", s, n, off, f.size())
	mem, err := unix.Mmap(h.fd, off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	r.ok(err, "mmap")
	f.maps = append(f.maps, mapping{off, mem})
}

// mapped chooses a mapping, and a part of the mapping below the end of file: n bytes from byte from
// of the mapping. n is 0 if there is no such part.
func (r *run) mapped(f *file) (m mapping, from, n int64) {
	if len(f.maps) == 0 {
		if r.mapIt(f); len(f.maps) == 0 {
			return m, 0, 0
		}
	}
	m = f.maps[r.IntN(len(f.maps))]
	most := min(int64(len(m.mem)), f.size()-m.off)
	if most <= 0 {
		return m, 0, 0
	}
	from = r.Int64N(most)
	return m, from, min(r.length(1<<20), most-from)
}

func (r *run) mapRead(f *file) {
	m, from, n := r.mapped(f)
	if n == 0 {
		return
	}
	r.note("mapping of %s at %d: read %d at %d", r.id(f), m.off, n, m.off+from)
	off := m.off + from
	if d := differs(off, m.mem[from:from+n], f.model[off:off+n]); d != "" {
		r.failf("read through a mapping: %s", d)
	}
}

func (r *run) mapWrite(f *file) {
	m, from, n := r.mapped(f)
	if n == 0 {
		return
	}
	off := m.off + from
	r.note("mapping of %s at %d: write %d at %d of %d", r.id(f), m.off, n, off, f.size())
	data := r.data(n, r.n)
	copy(m.mem[from:], data)
	f.put(off, data)
	f.dirty = true
	if end := f.size() - m.off; *pollute && end%page != 0 && end < int64(len(m.mem)) {
		m.mem[end] = 'P' // must never become part of the file
	}
	if r.IntN(8) == 0 {
		r.ok(unix.Msync(m.mem, unix.MS_SYNC), "msync")
	}
}

func (r *run) unmap(f *file) {
	if len(f.maps) == 0 {
		return
	}
	i := r.IntN(len(f.maps))
	r.note("munmap %s: %d at %d", r.id(f), len(f.maps[i].mem), f.maps[i].off)
	r.ok(unix.Munmap(f.maps[i].mem), "munmap")
	f.maps = slices.Delete(f.maps, i, i+1)
}

func (r *run) msync(f *file) {
	if len(f.maps) == 0 {
		return
	}
	m := f.maps[r.IntN(len(f.maps))]
	how := []int{unix.MS_SYNC, unix.MS_ASYNC, unix.MS_SYNC | unix.MS_INVALIDATE}[r.IntN(3)]
	r.note("msync %s: mapping at %d, flags %d", r.id(f), m.off, how)
	r.ok(unix.Msync(m.mem, how), "msync")
}

func (r *run) truncate(f *file) {
	r.before(f)
	h, s := r.handle(f)
	to := r.offset(f.size(), r.max)
	if r.IntN(3) > 0 && f.size() > 0 { // mostly close to the present size
		to = min(r.max, max(0, f.size()+r.Int64N(64*page)-32*page))
	}
	r.note("truncate %s: %d, was %d", s, to, f.size())
	if r.IntN(2) == 0 || f.orphan > 0 {
		r.ok(do(func() error { return unix.Ftruncate(h.fd, to) }), "ftruncate")
	} else {
		r.ok(do(func() error { return unix.Truncate(f.name, to) }), "truncate")
	}
	if to <= f.size() { // otherwise blocks that were allocated beyond the end of file stay
		f.claimed = to
	}
	f.resize(to)
	f.claimed = max(f.claimed, to)
}

// span returns a random range of bytes within the largest size.
func (r *run) span(f *file) (off, n int64) {
	off = r.offset(f.size(), r.max-1)
	return off, r.length(r.max - off)
}

func (r *run) fallocate(f *file) {
	r.before(f)
	h, s := r.handle(f)
	off, n := r.span(f)
	mode := uint32(r.IntN(2)) * unix.FALLOC_FL_KEEP_SIZE
	r.note("fallocate %s: mode %d, %d at %d of %d", s, mode, n, off, f.size())
	r.ok(do(func() error { return unix.Fallocate(h.fd, mode, off, n) }), "fallocate")
	if mode == 0 && off+n > f.size() {
		f.resize(off + n)
	}
	f.claimed = max(f.claimed, off+n)
}

func (r *run) punch(f *file) {
	r.before(f)
	h, s := r.handle(f)
	off, n := r.span(f)
	r.note("punch %s: %d at %d of %d", s, n, off, f.size())
	r.ok(do(func() error { return unix.Fallocate(h.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n) }), "punch hole")
	f.zero(off, off+n)
}

// noZeroRange is set if the filesystem of -dir does not support FALLOC_FL_ZERO_RANGE, such as
// tmpfs.
var noZeroRange bool

func (r *run) zeroRange(f *file) {
	if noZeroRange {
		return
	}
	r.before(f)
	h, s := r.handle(f)
	off, n := r.span(f)
	mode := uint32(r.IntN(2)) * unix.FALLOC_FL_KEEP_SIZE
	r.note("zero range %s: mode %d, %d at %d of %d", s, mode, n, off, f.size())
	err := do(func() error { return unix.Fallocate(h.fd, unix.FALLOC_FL_ZERO_RANGE|mode, off, n) })
	if err == unix.EOPNOTSUPP && r.p.Mount == nil {
		noZeroRange = true
		return
	}
	r.ok(err, "zero range")
	f.zero(off, off+n)
	if mode == 0 && off+n > f.size() {
		f.resize(off + n)
	}
	f.claimed = max(f.claimed, off+n)
}

// copy calls copy_file_range(2) within a file or from one file to the other.
func (r *run) copy(dst *file) {
	src := r.files[r.IntN(len(r.files))]
	if src.size() == 0 {
		return
	}
	from, to := r.Int64N(src.size()), r.offset(dst.size(), r.max-1)
	n := r.length(r.max)
	switch r.IntN(4) {
	case 0: // nothing aligned
	case 1: // the same offset within a block on both sides
		to = to&^(page-1) + from%page
	default: // whole blocks
		from, to = from&^(page-1), to&^(page-1)
		n = (n + page - 1) &^ (page - 1)
	}
	n = min(n, src.size()-from, r.max-to)
	if n <= 0 || src == dst && from < to+n && to < from+n {
		return
	}
	srcHandle, srcDesc := r.handle(src)
	dstHandle, dstDesc := r.handle(dst)
	if dstHandle.flags&unix.O_APPEND != 0 {
		return // EBADF
	}
	if r.p.Mount == nil { // other filesystems splice, for which O_DIRECT must be aligned
		srcHandle, dstHandle = src.handles[0], dst.handles[0]
	}
	r.before(src)
	r.before(dst)
	r.note("copy_file_range %s to %s: %d at %d of %d to %d of %d", srcDesc, dstDesc, n, from, src.size(), to, dst.size())
	data := append([]byte(nil), src.model[from:from+n]...)
	for done := int64(0); done < n; {
		off, i := to+done, from+done
		got, err := retry(func() (int, error) { return unix.CopyFileRange(srcHandle.fd, &i, dstHandle.fd, &off, int(n-done), 0) })
		r.ok(err, "copy_file_range")
		if got <= 0 {
			r.failf("copy_file_range returned %d after %d of %d bytes", got, done, n)
		}
		done += int64(got)
	}
	dst.put(to, data)
}

func (r *run) seek(f *file) {
	if f.size() == 0 {
		return
	}
	r.before(f)
	off := r.Int64N(f.size())
	r.note("seek %s from %d", r.id(f), off)
	r.holes(f, off, false)
}

func (r *run) sync(f *file) {
	h, s := r.handle(f)
	if r.IntN(2) == 0 {
		r.note("fsync %s", s)
		r.ok(do(func() error { return unix.Fsync(h.fd) }), "fsync")
	} else {
		r.note("fdatasync %s", s)
		r.ok(do(func() error { return unix.Fdatasync(h.fd) }), "fdatasync")
	}
}

func (r *run) reopen(f *file) {
	if f.orphan > 0 || len(f.handles) >= 4 {
		return
	}
	flags := unix.O_RDWR | []int{0, unix.O_DIRECT, unix.O_APPEND, unix.O_DIRECT}[r.IntN(4)]
	r.note("open %s, flags %#x", r.id(f), flags)
	r.open(f, flags)
}

// closeOne closes a handle other than the first, which is neither O_DIRECT nor O_APPEND. A single
// handle is closed and opened again.
func (r *run) closeOne(f *file) {
	if len(f.handles) < 2 {
		if f.orphan > 0 {
			return
		}
		r.note("close %s and open it", r.id(f))
		r.ok(unix.Close(f.handles[0].fd), "close")
		f.handles = f.handles[:0]
		r.open(f, unix.O_RDWR)
		return
	}
	i := 1 + r.IntN(len(f.handles)-1)
	r.note("close %s fd %d", r.id(f), f.handles[i].fd)
	r.ok(unix.Close(f.handles[i].fd), "close")
	f.handles = slices.Delete(f.handles, i, i+1)
}

// names links, renames or unlinks the file while it is open.
func (r *run) names(f *file) {
	if f.orphan > 0 {
		return
	}
	r.made++
	other := filepath.Join(r.p.dir, fmt.Sprintf("f%d-%d", r.seed, r.made))
	switch r.IntN(4) {
	case 0:
		r.note("unlink %s, which stays open", r.id(f))
		r.ok(do(func() error { return unix.Unlink(f.name) }), "unlink")
		f.orphan = 1 + r.IntN(100)
	case 1:
		r.note("rename %s to %s", r.id(f), filepath.Base(other))
		r.ok(do(func() error { return unix.Rename(f.name, other) }), "rename")
		f.name = other
	default:
		r.note("link %s to %s, and unlink the old name", r.id(f), filepath.Base(other))
		r.ok(do(func() error { return unix.Link(f.name, other) }), "link")
		r.ok(do(func() error { return unix.Unlink(f.name) }), "unlink")
		f.name = other
	}
}
