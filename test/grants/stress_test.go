package grants

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

const (
	stressFiles  = 6    // f0 to f3 are of an owner each; f4 and f5 share blocks, and are of one owner
	stressBlocks = 1024 // of each file, at most
	stressRegion = 112 << 20
	processes    = 3
	threads      = 3 // actors of each process
	mostKept     = 3 // mappings that an actor keeps
	ownerXattr   = "user.owner"
	copiesOwner  = 0xc0ffee & 0xffffff
)

// TestStress lets actors in several processes read and write files by grants and by the mount,
// truncate, punch, delete, replace and copy them, in a filesystem that is full now and then, while
// the daemon compacts it. No actor ever sees a word that is not of the file's own owner and block.
func TestStress(t *testing.T) {
	t.Parallel()
	base := seeded(t)
	m := harness.New(t, stressRegion, 2*time.Minute+time.Duration(*ops)*50*time.Millisecond)
	fresh := used(t, m)
	dir := m.Path("files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	var all []*child
	for i := range processes {
		all = append(all, start(t, "actor", dir, strconv.FormatUint(base, 10), strconv.Itoa(i), strconv.Itoa(*ops)))
	}
	for _, c := range all {
		c.succeeds(t)
	}
	took := time.Since(begun)
	for i := range stressFiles {
		if f, owner, err := openOwned(filepath.Join(dir, "f"+strconv.Itoa(i)), os.O_RDONLY); err == nil {
			b, err := io.ReadAll(f)
			if err == nil {
				err = check(b, owner, 0)
			}
			if err != nil {
				t.Error(err)
			}
			f.Close()
		}
	}
	s := m.Stats()
	ends(t, m)
	empty(t, m, dir, fresh)
	t.Logf("%d operations in %v; %d MiB moved by compaction", processes*threads**ops, took.Round(time.Millisecond), s.MovedBytes>>20)
}

// stress is an actor.
type stress struct {
	dir   string
	rng   *rand.Rand
	id    uint64 // of the actor
	made  uint64 // files that it has made
	kept  []kept
	buf   []byte
	own   *own
	words uint64 // that it has checked
}

// kept is a mapping that an actor looks at again later.
type kept struct {
	f     *direct.File
	m     *direct.Mapping
	owner uint64
	off   uint64
	write bool
}

// actor is a process with several actors. Its arguments are the directory, the seed, the number of
// the process, and how many operations each actor does.
func actor(args []string) error {
	errs := make(chan error, threads)
	for i := range uint64(threads) {
		id := number(args[2])*threads + i + 1
		a := &stress{dir: args[0], rng: rand.New(rand.NewPCG(number(args[1]), id)), id: id, buf: make([]byte, 64*blockSize)}
		go func() { errs <- a.work(int(number(args[3]))) }()
	}
	var all error
	for range threads {
		all = errors.Join(all, <-errs)
	}
	return all
}

func (a *stress) work(ops int) (err error) {
	if a.own, err = newOwn(a.dir, a.id); err != nil {
		return err
	}
	for i := range ops {
		err := a.op()
		if err == nil || !errors.Is(err, errForeign) {
			err = errors.Join(err, a.own.op(a.rng))
		}
		if errors.Is(err, errForeign) || err != nil && !benign(err) && !errors.Is(err, io.EOF) && !errors.Is(err, direct.ErrRange) &&
			!errors.Is(err, direct.ErrChanging) && !errors.Is(err, direct.ErrLayout) && !errors.Is(err, direct.ErrBudget) {
			return fmt.Errorf("actor %d, operation %d: %w", a.id, i, err)
		}
	}
	for len(a.kept) > 0 {
		if err := a.drop(); err != nil {
			return err
		}
	}
	if a.words == 0 {
		return fmt.Errorf("actor %d has read nothing", a.id)
	}
	return a.own.close()
}

// openOwned opens a file and returns its owner.
func openOwned(name string, mode int) (*os.File, uint64, error) {
	f, err := os.OpenFile(name, mode, 0)
	if err != nil {
		return nil, 0, err
	}
	var b [8]byte
	if n, err := unix.Fgetxattr(int(f.Fd()), ownerXattr, b[:]); err != nil || n != len(b) {
		f.Close()
		return nil, 0, fmt.Errorf("owner of %s: %d bytes, %w", name, n, err)
	}
	return f, binary.NativeEndian.Uint64(b[:]), nil
}

// check is the function check, and counts the words.
func (a *stress) check(p []byte, owner, off uint64, how string) error {
	for _, b := range p[:min(8, len(p))] {
		if b != 0 {
			a.words++
			break
		}
	}
	if err := check(p, owner, off); err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	return nil
}

// op does something at random.
func (a *stress) op() error {
	which := a.rng.IntN(stressFiles)
	name := filepath.Join(a.dir, "f"+strconv.Itoa(which))
	if len(a.kept) > 0 && a.rng.IntN(3) == 0 {
		if err := a.look(); err != nil {
			return err
		}
	}
	if a.rng.IntN(12) == 0 {
		return a.replace(which, name)
	}
	if a.rng.IntN(100) == 0 {
		return a.fill()
	}
	f, owner, err := openOwned(name, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return a.replace(which, name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	switch k := a.rng.IntN(20); {
	case k < 8:
		return a.direct(f, owner)
	case k < 12:
		return a.mapped(f, owner)
	case which >= stressFiles-2 && k < 15:
		return a.copy(f, which)
	}
	return a.mounted(f, owner)
}

// part returns a range of blocks at random.
func (a *stress) part(most uint64) (block, n uint64) {
	n = 1 + a.rng.Uint64N(most)
	if a.rng.IntN(2) == 0 {
		n = 1
	}
	return a.rng.Uint64N(stressBlocks - n + 1), n
}

// mounted does something through the mount.
func (a *stress) mounted(f *os.File, owner uint64) error {
	block, n := a.part(64)
	p, off := a.buf[:n*blockSize], int64(block*blockSize)
	switch a.rng.IntN(8) {
	case 0, 1:
		stamp(p, owner, block, a.rng.Uint64())
		_, err := f.WriteAt(p, off)
		return err
	case 2, 3:
		k, err := f.ReadAt(p, off)
		return errors.Join(a.check(p[:k], owner, uint64(off), "read"), err)
	case 4:
		return f.Truncate(off + 8*a.rng.Int64N(blockSize/8))
	case 5:
		return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(n*blockSize))
	case 6:
		return fallocate(f, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, int64(n*blockSize))
	}
	return fallocate(f, 0, off, int64(n*blockSize))
}

func fallocate(f *os.File, mode uint32, off, n int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), mode, off, n); err != unix.EINTR {
			return err
		}
	}
}

// direct reads or writes by copying, some times with the same leases.
func (a *stress) direct(f *os.File, owner uint64) error {
	d, err := direct.Open(f)
	if err != nil {
		return err
	}
	defer d.Close()
	for range 1 + a.rng.IntN(12) {
		block, n := a.part(64)
		p, off := a.buf[:n*blockSize], int64(block*blockSize)
		if a.rng.IntN(2) == 0 {
			stamp(p, owner, block, a.rng.Uint64())
			if _, err := d.WriteAt(p, off); err != nil {
				return err
			}
			continue
		}
		k, err := d.ReadAt(p, off)
		if err = errors.Join(a.check(p[:k], owner, uint64(off), "ReadAt"), err); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// mapped maps a range, and keeps the mapping.
func (a *stress) mapped(f *os.File, owner uint64) error {
	d, err := direct.Open(f)
	if err != nil {
		return err
	}
	block, n := a.part(600)
	o := direct.MapOptions{Write: a.rng.IntN(2) == 0}
	o.Allocate = o.Write && a.rng.IntN(2) == 0
	if a.rng.IntN(4) == 0 {
		o.PageSize = 2 << 20
	}
	m, err := d.Map(int64(block*blockSize), int64(n*blockSize), o)
	if err != nil {
		d.Close()
		return err
	}
	if len(a.kept) == mostKept {
		if err := a.drop(); err != nil {
			return err
		}
	}
	a.kept = append(a.kept, kept{d, m, owner, block * blockSize, o.Write})
	return a.look()
}

// look checks a mapping that is kept, and stores to it.
func (a *stress) look() error {
	k := a.kept[a.rng.IntN(len(a.kept))]
	b := k.m.Bytes()
	if err := a.check(b, k.owner, k.off, "mapping"); err != nil || !k.write {
		return err
	}
	i := a.rng.IntN(len(b)/blockSize) * blockSize
	n := min(len(b)-i, (1+a.rng.IntN(16))*blockSize)
	stamp(b[i:i+n], k.owner, (k.off+uint64(i))/blockSize, a.rng.Uint64())
	if a.rng.IntN(4) == 0 {
		return k.m.Flush(int64(i), int64(n))
	}
	return nil
}

// drop checks a mapping for the last time, and ends it.
func (a *stress) drop() error {
	i := a.rng.IntN(len(a.kept))
	k := a.kept[i]
	a.kept = append(a.kept[:i], a.kept[i+1:]...)
	return errors.Join(a.check(k.m.Bytes(), k.owner, k.off, "mapping"), k.m.Close(), k.f.Close())
}

// replace makes a file with a new owner and puts it in the place of another one, or deletes that.
func (a *stress) replace(which int, name string) error {
	if a.rng.IntN(3) == 0 {
		return os.Remove(name)
	}
	a.made++
	owner := a.id<<16 | a.made&0xffff
	if which >= stressFiles-2 {
		owner = copiesOwner
	}
	fresh := filepath.Join(a.dir, "new"+strconv.FormatUint(a.id, 10))
	f, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.Fsetxattr(int(f.Fd()), ownerXattr, binary.NativeEndian.AppendUint64(nil, owner), 0)
	if err == nil {
		for range 1 + a.rng.IntN(16) {
			block, n := a.part(64)
			stamp(a.buf[:n*blockSize], owner, block, 0)
			if _, err = f.WriteAt(a.buf[:n*blockSize], int64(block*blockSize)); err != nil {
				break
			}
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return os.Rename(fresh, name)
}

// copy makes the other file of the same owner share blocks with f.
func (a *stress) copy(f *os.File, which int) error {
	to, _, err := openOwned(filepath.Join(a.dir, "f"+strconv.Itoa(2*stressFiles-3-which)), os.O_RDWR)
	if err != nil {
		return err
	}
	defer to.Close()
	block, n := a.part(600)
	in, out := int64(block*blockSize), int64(block*blockSize)
	_, err = unix.CopyFileRange(int(f.Fd()), &in, int(to.Fd()), &out, int(n*blockSize), 0)
	if err == unix.EINTR {
		err = nil
	}
	return err
}

// fill takes all space for a moment.
func (a *stress) fill() error {
	name := filepath.Join(a.dir, "filler"+strconv.FormatUint(a.id, 10))
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer os.Remove(name)
	defer f.Close()
	owner := uint64(0xf00000) | a.id
	for block := uint64(0); ; block += 64 {
		stamp(a.buf, owner, block, 0)
		if _, err := f.WriteAt(a.buf, int64(block*blockSize)); err != nil {
			return err
		}
	}
}
