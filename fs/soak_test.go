package fs_test

import (
	"flag"
	"fmt"
	"math/rand"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
)

var soakOps = flag.Int("soak-ops", 10_000_000, "TestSoak: how many operations")

// soakBound is the growth of memory in bytes that TestSoak allows in each part of its operations,
// and soakBlocks the growth of the region's use in blocks. Of 10 million operations the first part
// has half, each other part 270 000.
const (
	soakBound  = 256 << 10
	soakBlocks = 16
)

// soak is a fixed tree under random operations, which remove what they make, so that the tree has
// few states.
type soak struct {
	*volume
	rng  *rand.Rand
	dirs []uint64 // a directory with long names only, and an empty one
	full uint64   // a directory with a single free line
	file []uint64
	done int
	buf  []byte
	leak func() // simulates a leak in each operation; nil: none
}

func newSoak(t *testing.T) *soak {
	s := &soak{volume: newVolume(t, 32<<20), rng: rand.New(rand.NewSource(1)), buf: make([]byte, 64<<10)}
	s.full = s.Mkdir("/full")
	for i := range 63 {
		s.Forget(s.Create(fmt.Sprintf("/full/n%02d", i)))
	}
	s.dirs = []uint64{s.Mkdir("/long"), s.Mkdir("/empty")}
	for i := range 20 {
		s.Forget(s.Create(fmt.Sprintf("/long/%0100d", i)))
	}
	for i := range 4 {
		s.file = append(s.file, s.Create(fmt.Sprint("/f", i)))
	}
	return s
}

func (s *soak) Forget(ino uint64) { s.FS.Forget(ino, 1) }

func (s *soak) op(e syscall.Errno, may ...syscall.Errno) bool {
	s.done++
	if s.leak != nil {
		s.leak()
	}
	for _, m := range may {
		if e == m {
			return false
		}
	}
	s.OK(e)
	return true
}

func (s *soak) name() string {
	if s.rng.Intn(4) == 0 {
		return strings.Repeat("x", 60+s.rng.Intn(150))
	}
	return "t"
}

// soakKinds is the number of kinds of steps.
const soakKinds = 18

// step makes a few operations of one kind.
func (s *soak) step(kind int) {
	f, ctx := s.FS, &s.Ctx
	d, d2 := s.dirs[s.rng.Intn(2)], s.dirs[s.rng.Intn(2)]
	ino := s.file[s.rng.Intn(len(s.file))]
	off := int64(s.rng.Intn(64)) << 12
	var a fs.Attr
	switch kind {
	default:
		panic(kind)
	case 16: // create, look up, unlink
		n := s.name()
		s.op(f.Mknod(ctx, d, n, syscall.S_IFREG|0o644, 0, &a))
		made := a.Ino
		s.op(f.Lookup(ctx, d, n, &a))
		s.op(f.Unlink(ctx, d, n))
		f.Forget(made, 2)
	case 0: // a file that is renamed, perhaps to another directory
		n, m := s.name(), s.name()+"y"
		s.op(f.Mknod(ctx, d, n, syscall.S_IFREG|0o644, 0, &a))
		s.op(f.Rename(ctx, d, n, d2, m, 0))
		s.op(f.Unlink(ctx, d2, m))
		s.Forget(a.Ino)
	case 1:
		s.op(f.Mkdir(ctx, d, "dir", 0o755, &a))
		made := a.Ino
		s.op(f.Mknod(ctx, made, "x", syscall.S_IFREG|0o644, 0, &a))
		s.Forget(a.Ino)
		s.op(f.Unlink(ctx, made, "x"))
		s.op(f.Rmdir(ctx, d, "dir"))
		s.Forget(made)
	case 2:
		s.op(f.Symlink(ctx, d, "link", strings.Repeat("t", 1+s.rng.Intn(200)), &a))
		_, e := f.Readlink(ctx, a.Ino, s.buf[:0])
		s.op(e)
		s.op(f.Unlink(ctx, d, "link"))
		s.Forget(a.Ino)
	case 3:
		s.op(f.Link(ctx, ino, d, "hard", &a))
		s.Forget(ino)
		s.op(f.Unlink(ctx, d, "hard"))
	case 4:
		_, e := f.Write(ctx, ino, off+int64(s.rng.Intn(4096)), s.buf[:1+s.rng.Intn(16<<10)])
		s.op(e, syscall.ENOSPC)
	case 5:
		s.op(f.SetAttr(ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(off)}, &a))
	case 6:
		s.op(f.Fallocate(ctx, ino, fs.FallocPunchHole|fs.FallocKeepSize, off, 8192))
	case 7:
		s.op(f.Fallocate(ctx, ino, 0, off, 64<<10), syscall.ENOSPC)
	case 8:
		_, e := f.CopyRange(ctx, ino, 0, s.file[(s.rng.Intn(len(s.file)))], 1<<20, 64<<10)
		s.op(e, syscall.ENOSPC, syscall.EINVAL)
	case 9:
		r := f.NewPinnedRead()
		e := f.Read(ctx, ino, off, 64<<10, r)
		if s.op(e) {
			r.Done()
		}
		r.Free()
	case 10:
		n := fmt.Sprint("user.", s.rng.Intn(8))
		s.op(f.SetXattr(ctx, ino, n, s.buf[:s.rng.Intn(6000)], 0), syscall.ENOSPC)
		_, e := f.GetXattr(ctx, ino, n, s.buf)
		s.op(e, syscall.ENODATA)
		_, e = f.ListXattr(ctx, ino, s.buf)
		s.op(e)
		s.op(f.RemoveXattr(ctx, ino, n), syscall.ENODATA)
	case 11:
		s.op(f.ReadDir(ctx, d, 0, func(*fs.Dirent) bool { return true }))
		s.op(f.Fsync(ctx, ino, false))
		s.op(f.GetAttr(ctx, ino, &a))
	case 12:
		var st fs.StatFS
		f.StatFS(&st)
		_, e := f.Lseek(ctx, ino, 0, 4) // SEEK_HOLE
		s.op(e, syscall.ENXIO)
	case 13: // unlinked while it is open
		s.op(f.Mknod(ctx, d, "open", syscall.S_IFREG|0o644, 0, &a))
		s.op(f.Unlink(ctx, d, "open"))
		_, e := f.Write(ctx, a.Ino, 0, s.buf[:8192])
		s.op(e, syscall.ENOSPC)
		s.Forget(a.Ino)
	case 14: // without a name
		s.op(f.Tmpfile(ctx, d, 0o600, &a))
		s.Forget(a.Ino)
	case 15: // absent
		s.op(f.Lookup(ctx, d, "absent", &a), syscall.ENOENT)
	case 17: // a directory becomes full, and no longer is
		s.op(f.Mknod(ctx, s.full, "t", syscall.S_IFREG|0o644, 0, &a))
		s.op(f.Unlink(ctx, s.full, "t"))
		s.Forget(a.Ino)
	}
}

// used truncates the files, and returns the memory in bytes and the blocks of the region in use.
func (s *soak) used() (memory, blocks int64) {
	for _, ino := range s.file {
		s.Truncate(ino, 0)
	}
	runtime.GC()
	runtime.GC() // the first keeps the content of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	st := s.FS.Stats()
	return int64(m.HeapAlloc + st.FolioTableBytes + st.SplitTableBytes), int64(st.Blocks - st.FreeBlocks)
}

// part makes n operations of one kind (-1: of all), and returns the growth of memory in bytes and
// of the region's use in blocks. It makes n/10 operations before, which may take memory and blocks.
func (s *soak) part(kind, n int) (memory, blocks int64) {
	steps := func(n int) {
		for end := s.done + n; s.done < end; {
			if k := kind; k >= 0 {
				s.step(k)
			} else {
				s.step(s.rng.Intn(soakKinds))
			}
		}
	}
	steps(n / 10)
	m, b := s.used()
	steps(n)
	m2, b2 := s.used()
	return m2 - m, b2 - b
}

// TestSoak checks that random operations on a fixed tree, of all kinds and of each kind alone, do
// not make memory and space grow.
func TestSoak(t *testing.T) {
	n := *soakOps
	if testing.Short() {
		n = min(n, 100_000)
	}
	s := newSoak(t)
	start := time.Now()
	most := int64(0)
	for kind := -1; kind < soakKinds; kind++ {
		part := n / 2 / soakKinds
		if kind < 0 {
			part = n / 2
		}
		memory, blocks := s.part(kind, part)
		if most = max(most, memory); memory > soakBound {
			t.Errorf("kind %d: memory grew by %d bytes in %d operations, expected %d at most", kind, memory, part, soakBound)
		}
		if blocks > soakBlocks {
			t.Errorf("kind %d: the region's use grew by %d blocks in %d operations, expected %d at most", kind, blocks, part, soakBlocks)
		}
	}
	t.Logf("%d operations in %v: memory grew by %d bytes at most", s.done, time.Since(start).Round(time.Second), most)
}

// TestSoakFindsLeaks checks that a leak of a tenth more than the bound fails TestSoak.
func TestSoakFindsLeaks(t *testing.T) {
	const n = 50_000
	s := newSoak(t)
	var kept [][]byte
	s.leak = func() {
		if s.done%(n/50) == 0 {
			kept = append(kept, make([]byte, soakBound/50*11/10))
		}
	}
	memory, _ := s.part(-1, n)
	runtime.KeepAlive(kept)
	if memory <= soakBound {
		t.Errorf("memory grew by %d bytes, and %d are allowed", memory, soakBound)
	}
}
