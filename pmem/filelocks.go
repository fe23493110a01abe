package pmem

import "os"

// FileLocks tells which locks other open file descriptions hold on a file, whether it is a region
// or only was one. Region has the same methods.
type FileLocks struct{ File *os.File }

// FirstLock is Region.FirstLock.
func (l FileLocks) FirstLock(off, n int64) (lo, hi int64, ok bool, err error) {
	return firstLock(l.File, off, n)
}

// Locks is Region.Locks.
func (l FileLocks) Locks(off, n int64, f func(lo, hi int64) bool) error {
	_, err := locks(l.File, off, off+n, f)
	return err
}

// FileLocks tells which locks programs hold on the file, whatever it holds.
func (h *Handle) FileLocks() FileLocks { return FileLocks{h.file} }
