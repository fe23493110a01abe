package fs_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// A stress of grants. Programs map files through grants, and load and store their blocks, while
// others work on the same files through the mount, and the daemon dies and comes again. Each word
// of each file is a stamp: the file that it was written to, and a number that grows. No program and
// no reader may ever see a stamp that its file cannot have.

// stampShift is the number of bits of a stamp's number. The bits above are the file's id.
const stampShift = 40

// stressed is the volume, its files, and what all goroutines share.
type stressed struct {
	*granting
	stop   time.Time
	names  [8]atomic.Pointer[stamped] // what "/f0" to "/f7" are
	serial atomic.Uint64              // the last number of a stamp
	ids    atomic.Uint64              // the last id of a file

	gate  sync.RWMutex // held for writing while the daemon is exchanged
	copy  sync.Mutex   // held during a copy between files, and while a name gets another file
	bytes []byte       // the region

	loads, stores, grants, stale, compared, mounts atomic.Int64
}

// stamped is a file. Whoever uses it counts in users: the last one forgets the inode.
type stamped struct {
	ino, id uint64
	users   atomic.Int64

	mu      sync.RWMutex // held for writing while nobody may change the content
	srcMu   sync.Mutex
	sources map[uint64]uint64 // by id of a file: the largest number of its stamps that this file may have
}

// may reports whether a file may have a word.
func (f *stamped) may(w uint64) bool {
	id, n := w>>stampShift, w&(1<<stampShift-1)
	if w == 0 || id == f.id {
		return true
	}
	f.srcMu.Lock()
	defer f.srcMu.Unlock()
	most, ok := f.sources[id]
	return ok && n <= most
}

// gains says that a file may get what another one has, up to stamps with the number most.
func (f *stamped) gains(src *stamped, most uint64) {
	all := map[uint64]uint64{}
	src.srcMu.Lock()
	maps.Copy(all, src.sources)
	src.srcMu.Unlock()
	f.srcMu.Lock()
	defer f.srcMu.Unlock()
	for id, n := range all {
		f.sources[id] = max(n, f.sources[id])
	}
	f.sources[src.id] = most
}

// running reports whether the time is not over, or too little has happened on a busy machine.
func (s *stressed) running() bool {
	late := time.Since(s.stop)
	return late < 0 || late < time.Minute && !s.enough()
}

func (s *stressed) enough() bool {
	return s.grants.Load() >= 100 && s.stale.Load() >= 10 && s.stores.Load() >= 100 && s.compared.Load() >= 10 && s.mounts.Load() >= 3
}

// stamp returns a new stamp of a file.
func (s *stressed) stamp(f *stamped) uint64 { return f.id<<stampShift | s.serial.Add(1) }

// use returns the file of a name, with a use.
func (s *stressed) use(i int) *stamped {
	for {
		f := s.names[i].Load()
		if n := f.users.Load(); n > 0 && f.users.CompareAndSwap(n, n+1) {
			return f
		}
	}
}

// done gives back a use. Called with gate held.
func (s *stressed) done(f *stamped) {
	if f.users.Add(-1) == 0 {
		s.FS.Forget(f.ino, 1)
	}
}

// create makes a new file, and gives it a name: it replaces what has the name, by unlink(2) or
// rename(2).
func (s *stressed) create(ctx *fs.Caller, i int, over bool) {
	s.copy.Lock()
	defer s.copy.Unlock()
	name, fresh := fmt.Sprint("f", i), fmt.Sprint("new", i)
	var a fs.Attr
	if s.FS.Mknod(ctx, layout.RootIno, fresh, syscall.S_IFREG|0o644, 0, &a) != 0 {
		return // no space
	}
	if !over {
		s.FS.Unlink(ctx, layout.RootIno, name)
	}
	for s.FS.Rename(ctx, layout.RootIno, fresh, layout.RootIno, name, 0) != 0 {
		time.Sleep(time.Millisecond)
	}
	f := &stamped{ino: a.Ino, id: s.ids.Add(1), sources: map[uint64]uint64{}}
	f.users.Store(1)
	if old := s.names[i].Swap(f); old != nil {
		s.done(old)
	}
}

// load checks all words of a range that is a multiple of 8 bytes.
func (s *stressed) check(what string, f *stamped, b []byte) {
	for off := int64(0); off+8 <= int64(len(b)); off += 8 {
		if w := word(b, off); !f.may(w) {
			s.Errorf("%s: a word of file %d, number %d, in file %d", what, w>>stampShift, w&(1<<stampShift-1), f.id)
			return
		}
	}
	s.loads.Add(1)
}

// read reads a part of a file through the mount, and checks it.
func (s *stressed) read(ctx *fs.Caller, f *stamped, off int64, n int) (got []byte) {
	r := s.FS.NewPinnedRead()
	defer r.Free()
	if s.FS.Read(ctx, f.ino, off, n, r) != 0 {
		return nil
	}
	for _, part := range r.Slices() {
		s.check("a read through the mount", f, part)
		for i := int64(0); i+8 <= int64(len(part)); i += 8 {
			got = append(got, make([]byte, 8)...)
			setWord(got, int64(len(got)-8), word(part, i))
		}
	}
	r.Done()
	return got
}

// work changes files through the mount.
func (s *stressed) work(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	ctx := &fs.Caller{Lane: uint32(seed)}
	for s.running() {
		s.gate.RLock()
		i := rnd.IntN(len(s.names))
		f := s.use(i)
		off, n := rnd.Int64N(96)*4096, (1+rnd.Int64N(16))*4096
		if rnd.IntN(3) == 0 {
			off, n = off+8*rnd.Int64N(512), n-8*rnd.Int64N(512)
		}
		switch op := rnd.IntN(40); {
		case op == 0:
			s.create(ctx, i, rnd.IntN(2) == 0)
		case op < 3:
			if g := s.use(rnd.IntN(len(s.names))); g != f {
				s.clone(ctx, f, g, off&^4095, rnd.Int64N(96)*4096, n)
				s.done(g)
			} else {
				s.done(g)
			}
		case op < 5:
			s.FS.Compact(ctx)
		case op == 5 && rnd.IntN(4) == 0:
			s.hog(ctx)
		case op < 10:
			s.exclusively(ctx, rnd, f)
		case op < 14:
			if g := s.use(rnd.IntN(len(s.names))); g != f {
				s.share(ctx, rnd, f, g)
				s.done(g)
			} else {
				s.done(g)
			}
		case op < 20:
			s.read(ctx, f, off&^7, int(n))
		default:
			f.mu.RLock()
			switch {
			case op < 23:
				s.FS.SetAttr(ctx, f.ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(off)}, new(fs.Attr))
			case op < 28:
				mode := []uint32{0, fs.FallocKeepSize, fs.FallocPunchHole | fs.FallocKeepSize, fs.FallocZeroRange, fs.FallocZeroRange | fs.FallocKeepSize}[rnd.IntN(5)]
				s.FS.Fallocate(ctx, f.ino, mode, off, n)
			case op == 28:
				s.FS.Fsync(ctx, f.ino, false)
			default:
				s.write(ctx, f, off, n)
			}
			f.mu.RUnlock()
		}
		s.done(f)
		s.gate.RUnlock()
	}
}

// write writes a stamp to n bytes of a file at byte offset off.
func (s *stressed) write(ctx *fs.Caller, f *stamped, off, n int64) {
	b, w := make([]byte, n), s.stamp(f)
	for i := int64(0); i+8 <= n; i += 8 {
		setWord(b, i, w)
	}
	s.FS.Write(ctx, f.ino, off, b)
}

// share has a program map a part of a file that is then copied, so that another file may share the
// blocks. If the program may store, the other file does not get what it stores. Otherwise the first
// file loses the blocks, and the program does not see what is written to the other one.
func (s *stressed) share(ctx *fs.Caller, rnd *rand.Rand, f, other *stamped) {
	write := rnd.IntN(2) == 0
	f.mu.RLock()
	m := s.open(ctx, rnd, f, write)
	f.mu.RUnlock()
	if m == nil {
		return
	}
	defer m.close(rnd, ctx)
	off, n := int64(m.g.Lo)<<layout.BlockShift, int64(m.g.Hi-m.g.Lo)<<layout.BlockShift
	s.clone(ctx, f, other, off, off, n)
	if write {
		m.store(rnd)
		s.read(ctx, other, off, int(n))
		return
	}
	f.mu.RLock()
	s.FS.Fallocate(ctx, f.ino, fs.FallocPunchHole|fs.FallocKeepSize, off, n)
	f.mu.RUnlock()
	other.mu.RLock()
	s.write(ctx, other, off, n)
	other.mu.RUnlock()
	s.check("a load through a grant of what another file has now", f, m.copy())
}

// clone copies a part of a file to another one.
func (s *stressed) clone(ctx *fs.Caller, src, dst *stamped, from, to, n int64) {
	s.copy.Lock()
	defer s.copy.Unlock()
	src.mu.RLock()
	dst.mu.RLock()
	dst.gains(src, math.MaxUint64)
	s.FS.CopyRange(ctx, src.ino, from, dst.ino, to, n&^4095)
	dst.gains(src, s.serial.Load())
	dst.mu.RUnlock()
	src.mu.RUnlock()
}

// hog takes all space that there is, and gives it back.
func (s *stressed) hog(ctx *fs.Caller) {
	s.copy.Lock()
	defer s.copy.Unlock()
	var a fs.Attr
	if s.FS.Mknod(ctx, layout.RootIno, "hog", syscall.S_IFREG|0o600, 0, &a) != 0 {
		return
	}
	f := &stamped{ino: a.Ino, id: s.ids.Add(1)}
	b := make([]byte, 1<<16)
	w := s.stamp(f)
	for j := int64(0); j < int64(len(b)); j += 8 {
		setWord(b, j, w)
	}
	off := int64(0)
	for s.running() {
		n, e := s.FS.Write(ctx, f.ino, off, b)
		if off += int64(n); e != 0 {
			break
		}
	}
	for at := int64(0); at < off; at += 1 << 20 {
		s.read(ctx, f, at, 1<<20)
	}
	s.FS.Unlink(ctx, layout.RootIno, "hog")
	s.FS.Forget(f.ino, 1)
}

// exclusively checks, while nobody changes a file, that a grant shows what the mount shows and the
// reverse, and that a change of the layout shows in the slot when it has returned.
func (s *stressed) exclusively(ctx *fs.Caller, rnd *rand.Rand, f *stamped) {
	f.mu.Lock()
	defer f.mu.Unlock()
	write := rnd.IntN(2) == 0
	m := s.open(ctx, rnd, f, write)
	if m == nil {
		return
	}
	defer m.close(rnd, ctx)
	g := m.g
	if write {
		for _, p := range g.Parts {
			setWord(s.bytes, int64(p.Block)<<layout.BlockShift, s.stamp(f))
		}
		// Nothing moves the blocks: no compaction, and no write next to them that collapses folios.
		s.FS.Compact(ctx)
		s.write(ctx, f, int64(g.Hi)<<layout.BlockShift, 8*4096)
	}
	seen := m.copy()
	if got := s.read(ctx, f, int64(g.Lo)<<layout.BlockShift, len(seen)); write || m.current() {
		s.compared.Add(1)
		for i := 0; i+8 <= len(got); i += 8 {
			if a, b := word(got, int64(i)), word(seen, int64(i)); a != b {
				s.Errorf("a grant of blocks %d to %d of file %d shows %#x at %d, and the mount %#x", g.Lo, g.Hi, f.id, b, i, a)
				return
			}
		}
	}
	if len(g.Parts) == 0 {
		return
	}
	p := g.Parts[rnd.IntN(len(g.Parts))]
	off := int64(p.Logical+rnd.Uint64N(p.N)) << layout.BlockShift
	if rnd.IntN(2) == 0 {
		if s.FS.Fallocate(ctx, f.ino, fs.FallocPunchHole|fs.FallocKeepSize, off, 4096) == 0 && m.current() {
			s.Errorf("a hole was punched in file %d, and its grant is not stale", f.id)
		}
	} else if s.FS.SetAttr(ctx, f.ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(off)}, new(fs.Attr)) == 0 && m.current() {
		s.Errorf("file %d was cut to %d bytes, and its grant is not stale", f.id, off)
	}
}

// exchange ends the daemon, dead or by an unmount, and starts a new one. Programs keep what they
// map.
func (s *stressed) exchange(clean bool) {
	s.gate.Lock()
	defer s.gate.Unlock()
	for i := range s.names {
		if f := s.names[i].Load(); f.users.Load() != 1 {
			s.Fatalf("file %d has %d users between operations", f.id, f.users.Load())
		}
	}
	if clean {
		s.Unmount()
		s.Check()
	} else {
		s.Crash()
	}
	s.Mount()
	for i := range s.names {
		f := s.names[i].Load()
		var a fs.Attr
		if e := s.FS.Lookup(&s.Ctx, layout.RootIno, fmt.Sprint("f", i), &a); e != 0 || a.Ino != f.ino {
			s.Fatalf("f%d is inode %d and was %d, %v", i, a.Ino, f.ino, e)
		}
	}
	s.mounts.Add(1)
}

var grantStress = flag.Duration("grant-stress", 6*time.Second, "how long TestGrantStress runs")

// TestGrantStress runs programs with grants and programs on the mount at once, with a daemon that
// is exchanged again and again. In the end nothing is leased, deferred or lost.
func TestGrantStress(t *testing.T) {
	span := *grantStress
	if testing.Short() {
		span = min(span, 3*time.Second)
	}
	s := &stressed{granting: newGranting(t, 16<<20), stop: time.Now().Add(span)}
	s.Unmerged = true
	s.bytes = s.R.Bytes(0, s.R.Size())
	free := s.Free()
	for i := range s.names {
		s.gate.RLock()
		s.create(&s.Ctx, i, false)
		s.gate.RUnlock()
	}
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Add(2)
		go func() { defer wg.Done(); s.work(i) }()
		go func() { defer wg.Done(); s.program(10 + i) }()
	}
	for i := 0; s.running() && !t.Failed(); i++ {
		time.Sleep(300 * time.Millisecond)
		s.exchange(i%2 == 0)
	}
	wg.Wait()
	t.Logf("%d grants, %d loads of grants and reads, %d of stale grants, %d stores, %d comparisons, %d mounts",
		s.grants.Load(), s.loads.Load(), s.stale.Load(), s.stores.Load(), s.compared.Load(), s.mounts.Load())
	if !s.enough() {
		t.Error("too little happened")
	}
	for range 3 {
		if err := s.FS.Direct().Sweep(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease.Quarantine)
	}
	if n := s.FS.Stats().DeferredFrees; n != 0 {
		t.Errorf("%d bytes are deferred though no program is left", n)
	}
	for i := range s.names {
		s.FS.Forget(s.names[i].Load().ino, 1)
	}
	s.Remount()
	for i := range s.names {
		s.Delete(fmt.Sprint("/f", i))
	}
	s.FS.AwaitDeleted(&s.Ctx)
	if n := s.Free(); n < free-2 {
		t.Errorf("%d blocks are free in the end, %d before", n, free)
	}
	s.Remount()
}
