package fs_test

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
)

// held makes a full filesystem with a file that was truncated while a read in flight referenced its
// blocks, half of the region. It returns the read and the number of bytes that become free with it.
func held(t *testing.T) (v *volume, r *fs.PinnedRead, n int64) {
	v = newVolume(t, 16<<20)
	var s fs.StatFS
	v.FS.StatFS(&s)
	n = int64(s.Bavail) << 12 / 2 &^ (1<<18 - 1)
	big := v.Create("/big")
	v.Fallocate(big, 0, 0, n)
	rest := v.Create("/rest")
	v.FS.StatFS(&s)
	v.Fallocate(rest, 0, 0, int64(s.Bavail)<<12)
	v.Create("/new")
	r = v.FS.NewPinnedRead()
	v.OK(v.FS.Read(&v.Ctx, big, 0, int(n), r))
	v.Truncate(big, 0)
	if d := v.FS.Stats().DeferredFrees; int64(d) != n {
		t.Fatalf("%d bytes are deferred, want %d", d, n)
	}
	return v, r, n
}

// TestNoSpaceWaits checks that an operation that finds no space waits for blocks that a read in
// flight references: not long, not again for the same read, not at all if it must not wait, and no
// longer than its caller allows.
func TestNoSpaceWaits(t *testing.T) {
	fallocate := func(v *volume, ctx *fs.Caller, n int64) syscall.Errno {
		return v.FS.Fallocate(ctx, v.Ino("/new"), 0, 0, n)
	}
	write := func(v *volume, ctx *fs.Caller, n int64) syscall.Errno {
		m, e := v.FS.Write(ctx, v.Ino("/new"), 0, make([]byte, n))
		if e == 0 && int64(m) != n {
			v.Errorf("wrote %d bytes of %d", m, n)
		}
		return e
	}
	for name, op := range map[string]func(v *volume, ctx *fs.Caller, n int64) syscall.Errno{"fallocate": fallocate, "write": write} {
		t.Run(name, func(t *testing.T) {
			const soon, slow = 30 * time.Millisecond, 100 * time.Millisecond
			timed := func(v *volume, ctx *fs.Caller, n int64, want syscall.Errno) time.Duration {
				t.Helper()
				start := time.Now()
				if e := op(v, ctx, n); e != want {
					t.Errorf("answer %v, want %v", e, want)
				}
				return time.Since(start)
			}
			t.Run("in flight", func(t *testing.T) {
				v, r, n := held(t)
				time.AfterFunc(soon, func() { r.Done(); r.Free() })
				if d := timed(v, &v.Ctx, n, 0); d < soon/2 {
					t.Errorf("took %v, the read took %v", d, soon)
				}
			})
			t.Run("for long", func(t *testing.T) {
				v, r, n := held(t)
				timed(v, &v.Ctx, n, syscall.ENOSPC)
				var again time.Duration
				for i := range 5 { // the machine may be busy
					if again = timed(v, &v.Ctx, n, syscall.ENOSPC); again < slow {
						break
					} else if i == 4 {
						t.Errorf("the second time it took %v, too", again)
					}
				}
				r.Done()
				r.Free()
				timed(v, &v.Ctx, n, 0)
			})
			t.Run("no wait", func(t *testing.T) {
				v, r, n := held(t)
				timed(v, &fs.Caller{NoWait: true}, n, syscall.EAGAIN)
				r.Done()
				r.Free()
				timed(v, &fs.Caller{NoWait: true}, n, 0)
			})
			t.Run("given up", func(t *testing.T) {
				v, r, n := held(t)
				c := make(chan struct{})
				close(c)
				for i := range 5 {
					if d := timed(v, &fs.Caller{Cancel: c}, n, syscall.EINTR); d < slow {
						break
					} else if i == 4 {
						t.Errorf("took %v to give up", d)
					}
				}
				r.Done()
				r.Free()
			})
		})
	}
}

// TestSpaceComesMeanwhile ends a read after an operation found no space, and before it looks for
// blocks that will become free. The operation must be retried.
func TestSpaceComesMeanwhile(t *testing.T) {
	v, r, n := held(t)
	asked := 0
	v.FS.LimitAlloc(func(want uint64) uint64 {
		if asked++; asked == 1 {
			r.Done()
			r.Free()
			return 0
		}
		return want
	})
	m, e := v.FS.Write(&fs.Caller{NoWait: true}, v.Ino("/new"), 0, make([]byte, n))
	v.FS.LimitAlloc(nil)
	if int64(m) != n || e != 0 {
		t.Errorf("wrote %d bytes of %d: %v", m, n, e)
	}
}

// TestSpaceOfTwoReaders checks that a writer which finds no space waits for what the first of two
// readers keeps, although the second one, who keeps a part of the same, ends meanwhile.
func TestSpaceOfTwoReaders(t *testing.T) {
	v := newVolume(t, 64<<20)
	const large, block = 2 << 20, 4096
	ino, other := v.Create("/f"), v.Create("/other")
	v.Write(ino, 0, make([]byte, large+256<<10)) // the last 256 KiB are one folio
	ctx, at := &fs.Caller{}, int64(0)
	fill := func() {
		for _, n := range []int{1 << 20, block} {
			for data := make([]byte, n); ; {
				n, e := v.FS.Write(ctx, other, at, data)
				if at += int64(n); e != 0 {
					break
				}
			}
		}
	}
	read := func(off int64) *fs.PinnedRead {
		pin := v.FS.NewPinnedRead()
		v.OK(v.FS.Read(ctx, ino, off, block, pin))
		return pin
	}
	fill()
	first := read(large)
	v.Truncate(ino, large+192<<10)
	second := read(large + 128<<10)
	fill()
	v.Truncate(ino, large+64<<10)
	var once sync.Once
	v.FS.LimitAlloc(func(want uint64) uint64 {
		once.Do(func() {
			second.Done()
			time.AfterFunc(3*time.Millisecond, first.Done)
		})
		return want
	})
	defer v.FS.LimitAlloc(nil)
	if n, e := v.FS.Write(ctx, other, at, make([]byte, block)); n != block || e != 0 {
		t.Errorf("write: %d, %v", n, e)
	}
}
