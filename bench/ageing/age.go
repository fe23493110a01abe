package main

import (
	"fmt"
	"math"
	"math/rand"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30

	compactEvery = 500 // operations between two steps of compaction
)

// classes are the sizes of files: a share of all files in per cent, and the range in bytes.
var classes = []struct {
	share    float64
	from, to int64
}{
	{50, kib, 64 * kib}, {30, 64 * kib, 2 * mib}, {15, 2 * mib, 64 * mib}, {4, 64 * mib, gib}, {1, gib, 3 * gib},
}

// file is one file of the aged filesystem. Sizes are in bytes.
type file struct {
	ino         uint64
	name        string
	size, final int64
}

// ager ages a filesystem.
type ager struct {
	f    *fs.FS
	res  *Result
	ctx  fs.Caller
	rnd  *rand.Rand
	next int
	grow []*file // files smaller than their final size
	done []*file // files that have reached their final size
	ops  int     // operations made so far
}

func newAger(f *fs.FS, res *Result) *ager {
	return &ager{f: f, res: res, rnd: rand.New(rand.NewSource(res.Seed))}
}

// between returns a random number in [from, to), distributed log-uniformly.
func (a *ager) between(from, to int64) int64 {
	return int64(float64(from) * math.Exp(a.rnd.Float64()*math.Log(float64(to)/float64(from))))
}

func (a *ager) fileSize() int64 {
	p := a.rnd.Float64() * 100
	for _, c := range classes {
		if p -= c.share; p < 0 {
			return a.between(c.from, c.to)
		}
	}
	return kib
}

// full reports whether the wanted utilisation is reached.
func (a *ager) full() bool {
	var s fs.StatFS
	a.f.StatFS(&s)
	return (s.Blocks-s.Bfree)*100 >= s.Blocks*uint64(a.res.Util)
}

func (a *ager) run() error {
	want := int64(a.res.Churn) * a.res.Size
	for a.res.Written < want {
		var err error
		if a.full() && len(a.done) > 0 {
			err = a.shrink()
		} else {
			err = a.append()
		}
		if err != nil {
			return err
		}
		if a.ops++; a.ops%compactEvery == 0 {
			if _, e := a.f.Compact(&a.ctx); e != 0 {
				return fmt.Errorf("compaction: %w", e)
			}
		}
	}
	a.res.Files = len(a.done) + len(a.grow)
	return nil
}

// append grows one of the growing files, or creates a new one.
func (a *ager) append() error {
	if len(a.grow) < a.res.Writers {
		a.next++
		f := &file{name: fmt.Sprint("f", a.next), final: a.fileSize()}
		var at fs.Attr
		if e := a.f.Mknod(&a.ctx, 1, f.name, syscall.S_IFREG|0o644, 0, &at); e != 0 {
			return fmt.Errorf("create: %w", e)
		}
		f.ino = at.Ino
		a.grow = append(a.grow, f)
	}
	i := a.rnd.Intn(len(a.grow))
	f := a.grow[i]
	n := min(a.between(4*kib, 4*mib), f.final-f.size)
	if e := a.f.Fallocate(&a.ctx, f.ino, 0, f.size, n); e != 0 && e != syscall.ENOSPC {
		return fmt.Errorf("append: %w", e)
	} else if e == syscall.ENOSPC {
		return a.shrink()
	}
	f.size += n
	a.res.Written += n
	if f.size >= f.final {
		a.grow[i] = a.grow[len(a.grow)-1]
		a.grow = a.grow[:len(a.grow)-1]
		a.done = append(a.done, f)
	}
	return nil
}

// shrink deletes, truncates, punches or overwrites a file.
func (a *ager) shrink() error {
	i := a.rnd.Intn(len(a.done))
	f := a.done[i]
	var at fs.Attr
	switch p := a.rnd.Intn(100); {
	case p < 3 && f.size > 8*kib: // punch
		off := a.rnd.Int63n(f.size)
		n := min(a.between(4*kib, 16*mib), f.size-off)
		if e := a.f.Fallocate(&a.ctx, f.ino, fs.FallocPunchHole|fs.FallocKeepSize, off, n); e != 0 {
			return fmt.Errorf("punch: %w", e)
		}
		// Written again, so that holes come and go.
		if e := a.f.Fallocate(&a.ctx, f.ino, 0, off, n); e != 0 && e != syscall.ENOSPC {
			return fmt.Errorf("write into a hole: %w", e)
		}
		a.res.Written += n
	case p < 8 && f.size > 8*kib: // truncate
		f.size = a.rnd.Int63n(f.size)
		if e := a.f.SetAttr(&a.ctx, f.ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(f.size)}, &at); e != 0 {
			return fmt.Errorf("truncate: %w", e)
		}
	case p < 10 && f.size > 0: // overwrite
		if _, e := a.f.Write(&a.ctx, f.ino, a.rnd.Int63n(f.size), []byte("overwritten")); e != 0 {
			return fmt.Errorf("overwrite: %w", e)
		}
		f.size = max(f.size, a.size(f))
	default:
		if e := a.f.Unlink(&a.ctx, 1, f.name); e != 0 {
			return fmt.Errorf("delete: %w", e)
		}
		a.f.Forget(f.ino, 1)
		if e := a.f.AwaitReclaim(&a.ctx); e != 0 { // makes runs with the same seed identical
			return fmt.Errorf("delete: %w", e)
		}
		a.done[i] = a.done[len(a.done)-1]
		a.done = a.done[:len(a.done)-1]
	}
	return nil
}

func (a *ager) size(f *file) int64 {
	var at fs.Attr
	a.f.GetAttr(&a.ctx, f.ino, &at)
	return int64(at.Size)
}
