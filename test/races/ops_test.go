package races

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// asyncIO makes one asynchronous read or write at byte off and waits for it.
type asyncIO interface {
	do(write bool, fd int, b []byte, off int64) (int, error)
	close()
}

// worker is one side of a race, on a thread of its own.
type worker struct {
	r   *race
	off int64  // byte offset of its slot
	buf []byte // two pages, for O_DIRECT
	io  asyncIO
	progress
}

// op is an operation. A changing operation has step, a reading one has look.
type op struct {
	name  string
	async func() (asyncIO, error)
	// step makes the i-th change; i begins at 1.
	step func(w *worker, i uint64) error
	// zeroes means that even changes zero the slot. All other changes fill the slot with words of
	// i.
	zeroes bool
	// appends means that the i-th change appends the word i to the file.
	appends bool
	// cuts means that a change removes the bytes after the slot.
	cuts bool
	// look reads the word at byte off. It returns 0 beyond the end of file.
	look func(w *worker, off int64) (uint64, error)
	// direct means that the operation bypasses the page cache of every filesystem. Asynchronous
	// operations do in half of the pairs.
	direct bool
	// busy means that the operation is fast, so it runs for as long as the other side runs.
	busy bool
}

const appendAt = 4 * slot // byte offset where appended words begin

func exactly(want int) func(n int, err error) error {
	return func(n int, err error) error {
		if err == nil && n != want {
			err = fmt.Errorf("%d bytes of %d", n, want)
		}
		return err
	}
}

// asyncFD returns the descriptor for asynchronous requests. With dax=always they are asynchronous
// with and without O_DIRECT.
func (r *race) asyncFD() int {
	if r.async {
		return r.direct
	}
	return r.fd
}

var ops = []*op{
	{name: "read", look: func(w *worker, off int64) (uint64, error) {
		n, err := unix.Pread(w.r.fd, w.buf[:8], off)
		return word(w.buf[:max(n, 0)], 0), err
	}},
	{name: "read O_DIRECT", look: func(w *worker, off int64) (uint64, error) {
		n, err := unix.Pread(w.r.direct, w.buf, 0)
		return word(w.buf[:max(n, 0)], off), err
	}},
	{name: "AIO read", async: newAIO, look: asyncLook},
	{name: "io_uring read", async: newUring, look: asyncLook},
	{name: "load", busy: true, look: func(w *worker, off int64) (uint64, error) { return load(w.r.m, off), nil }},
	{name: "copy from", look: func(w *worker, off int64) (uint64, error) {
		n, err := copyRange(w.r.fd, w.r.copied, off, 8)
		if err != nil || n == 0 {
			return 0, err
		}
		n, err = unix.Pread(w.r.copied, w.buf[:8], off)
		return word(w.buf, 0), exactly(8)(n, err)
	}},
	{name: "store and msync", busy: true, step: func(w *worker, i uint64) error {
		store(w.r.m, w.off, i)
		if i%64 == 0 {
			return unix.Msync(w.r.m[:page], unix.MS_SYNC)
		}
		return nil
	}},
	{name: "write", step: func(w *worker, i uint64) error {
		return exactly(8)(unix.Pwrite(w.r.fd, filled(w.buf[:8], i), w.off))
	}},
	{name: "write O_DIRECT", direct: true, step: func(w *worker, i uint64) error {
		return exactly(slot)(unix.Pwrite(w.r.direct, filled(w.buf[:slot], i), w.off))
	}},
	{name: "AIO write", async: newAIO, step: asyncStep},
	{name: "io_uring write", async: newUring, step: asyncStep},
	{name: "append", appends: true, step: func(w *worker, i uint64) error {
		return exactly(8)(unix.Write(w.r.app, filled(w.buf[:8], i)))
	}},
	{name: "truncate", zeroes: true, cuts: true, step: func(w *worker, i uint64) error {
		if i%2 == 1 {
			return exactly(8)(unix.Pwrite(w.r.fd, filled(w.buf[:8], i), w.off))
		}
		if err := unix.Ftruncate(w.r.fd, w.off); err != nil {
			return err
		}
		return unix.Ftruncate(w.r.fd, w.r.size)
	}},
	{name: "punch", zeroes: true, step: func(w *worker, i uint64) error {
		if i%2 == 1 {
			return exactly(8)(unix.Pwrite(w.r.fd, filled(w.buf[:8], i), w.off))
		}
		for {
			err := unix.Fallocate(w.r.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, w.off, slot)
			if err != unix.EINTR {
				return err
			}
		}
	}},
	{name: "copy to", step: func(w *worker, i uint64) error {
		if n, err := unix.Pwrite(w.r.other, filled(w.buf[:slot], i), w.off); n != slot {
			return err
		}
		return exactly(slot)(copyRange(w.r.other, w.r.fd, w.off, slot))
	}},
}

// copyRange calls copy_file_range(2) for n bytes at the same offset of both files. It repeats a
// call that a signal of Go's scheduler interrupted.
func copyRange(from, to int, off int64, n int) (int, error) {
	for {
		a, b := off, off
		k, err := unix.CopyFileRange(from, &a, to, &b, n, 0)
		if err != unix.EINTR {
			return k, err
		}
	}
}

func asyncLook(w *worker, off int64) (uint64, error) {
	n, err := w.io.do(false, w.r.asyncFD(), w.buf, 0)
	return word(w.buf[:max(n, 0)], off), err
}

func asyncStep(w *worker, i uint64) error {
	return exactly(slot)(w.io.do(true, w.r.asyncFD(), filled(w.buf[:slot], i), w.off))
}

// where returns the byte offset of the i-th change and the word that the change leaves there.
func (o *op) where(w *worker, i uint64) (off int64, v uint64) {
	switch {
	case o.appends:
		return appendAt + 8*int64(i-1), i
	case o.zeroes && i%2 == 0:
		return w.off, 0
	}
	return w.off, i
}

// begin locks the goroutine to its thread and allocates what the operation needs.
func (o *op) begin(w *worker) (err error) {
	runtime.LockOSThread()
	w.buf = aligned(2 * page)
	if o.async != nil {
		w.io, err = o.async()
	}
	return err
}

func (w *worker) end() {
	if w.io != nil {
		w.io.close()
	}
	runtime.UnlockOSThread()
}

// once makes one change, or reads the other side's last change (by operation oo). It returns an
// error if it read older bytes than that change.
func (o *op) once(w *worker, other *worker, oo *op) error {
	if o.step != nil {
		i := w.begun.Add(1)
		if err := o.step(w, i); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		w.done.Store(i)
		return nil
	}
	done := other.done.Load()
	if done == 0 {
		return nil
	}
	off, want := oo.where(other, done)
	v, err := o.look(w, off)
	if err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	begun := other.begun.Load()
	switch {
	case v == want:
	case v >= done && v <= begun && !oo.appends:
	case oo.zeroes && v == 0 && begun > done:
	default:
		return fmt.Errorf("%s finds %d when change %d by %s has returned (and %d has begun)", o.name, v, done, oo.name, begun)
	}
	return nil
}

// check compares the contents, by the way they were read, with the changes that the side made.
func (o *op) check(w *worker, all map[string][]byte) error {
	n := w.done.Load()
	if o.step == nil || n == 0 {
		return nil
	}
	first := n
	if o.appends {
		first = 1
	}
	for how, b := range all {
		for i := first; i <= n; i++ {
			off, want := o.where(w, i)
			if off+8 > 2*page {
				break
			}
			if v := word(b, off); v != want {
				return fmt.Errorf("by %s there is %d where %s has left %d with change %d of %d", how, v, o.name, want, i, n)
			}
		}
	}
	return nil
}
