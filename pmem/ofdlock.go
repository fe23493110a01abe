package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Errors of locks that keep a mapping's memory from being reused.
var (
	// ErrTooManyLocks reports that the kernel has no memory or no quota for another lock (ENOLCK).
	ErrTooManyLocks = errors.New("pmem: no room for another lock on the region")
	// ErrLocksVanish reports a filesystem on which a mapping does not keep the locks of its
	// descriptor.
	ErrLocksVanish = errors.New("pmem: locks on the region end with close(2) though it is still mapped")
)

// probeByte is the byte offset that KeepsLocks locks. No other code locks that byte: regions end
// far below, and other locks behind the end of a region begin at 1<<62.
const probeByte = 1<<62 - 1

// LockShared takes a shared lock on bytes [off, off+n) of an open file, as F_OFD_SETLK with F_RDLCK
// does. The range may lie beyond the end of the file. The lock belongs to the open file
// description. The kernel drops it when the last descriptor or mapping of the description is gone,
// by munmap(2), exec(2) or the death of the process. fork(2) passes it on. f must be open for
// reading. LockShared returns ErrTooManyLocks on ENOLCK.
func LockShared(f *os.File, off, n int64) error {
	l := unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET, Start: off, Len: n}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		case unix.ENOLCK:
			return fmt.Errorf("%w: bytes %d+%d of %s", ErrTooManyLocks, off, n, f.Name())
		}
		return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
}

// FirstLock returns a part [lo, hi) of bytes [off, off+n) that another open file description of the
// region has locked. ok is false if there is none. Of several locks it returns any one, cut to the
// range. The range may lie beyond the end of the region. A region in memory has no locks. It asks
// with F_OFD_GETLK, and takes 1 to 6 µs as long as there are few locks.
func (r *Region) FirstLock(off, n int64) (lo, hi int64, ok bool, err error) {
	if r.file == nil {
		return 0, 0, false, nil
	}
	return firstLock(r.file, off, n)
}

func firstLock(f *os.File, off, n int64) (lo, hi int64, ok bool, err error) {
	for {
		// A lock for writing conflicts with every other lock.
		l := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: off, Len: n}
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, 0, false, &os.PathError{Op: "query locks", Path: f.Name(), Err: err}
		case l.Type == unix.F_UNLCK:
			return 0, 0, false, nil
		}
		lo, hi = max(l.Start, off), off+n
		if l.Len != 0 && l.Start <= hi-l.Len { // 0: the lock has no end
			hi = l.Start + l.Len
		}
		return lo, hi, true, nil
	}
}

// Locks calls f for each part [lo, hi) of bytes [off, off+n) that other open file descriptions of
// the region have locked, in ascending order, until f returns false. Parts of several locks may be
// adjacent, but never overlap. Locks that come or go meanwhile may be missed or reported. The
// kernel keeps locks in a list, so k locks take about k² steps: 2 ms for 500, and 2 s for 10 000.
func (r *Region) Locks(off, n int64, f func(lo, hi int64) bool) error {
	if r.file == nil {
		return nil
	}
	_, err := locks(r.file, off, off+n, f)
	return err
}

// locks is Region.Locks for bytes [lo, hi) of a file. more is false if f returned false.
func locks(file *os.File, lo, hi int64, f func(lo, hi int64) bool) (more bool, err error) {
	for lo < hi {
		a, b, ok, err := firstLock(file, lo, hi-lo)
		if err != nil || !ok {
			return true, err
		}
		// The kernel returns any lock: others may be before it.
		if more, err := locks(file, lo, a, f); err != nil || !more {
			return more, err
		}
		if !f(a, b) {
			return false, nil
		}
		lo = b
	}
	return true, nil
}

// KeepsLocks checks, by trying it, that a lock on the region outlives close(2) as long as the
// region is mapped. Otherwise it returns ErrLocksVanish. On overlayfs, for example, a mapping
// references the file below, and the lock ends with the descriptor above.
func (r *Region) KeepsLocks() (err error) {
	if r.file == nil {
		return fmt.Errorf("%w: the region is memory of this process", ErrLocksVanish)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", r.file.Fd()))
	if err != nil {
		return fmt.Errorf("pmem: opening %s once more: %w", r.path, err)
	}
	defer f.Close()
	if err := LockShared(f, probeByte, 1); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(r.align), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return &os.PathError{Op: "map", Path: r.path, Err: err}
	}
	defer unix.Munmap(m)
	f.Close()
	if _, _, ok, err := firstLock(r.file, probeByte, 1); err != nil || ok {
		return err
	}
	return fmt.Errorf("%w: %s", ErrLocksVanish, r.path)
}
