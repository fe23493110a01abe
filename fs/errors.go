package fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/daxfs/daxfs/fs/owner"
	"github.com/daxfs/daxfs/fs/posixacl"
	"github.com/daxfs/daxfs/pmem"
)

// Errors of Mount and Mkfs. They come wrapped in one sentence that says what was
// found and what to do.
var (
	// ErrInUse: the owner record names a live user, or one of which that is unclear.
	ErrInUse = owner.ErrInUse
	// ErrNeedsFsck: a structure is damaged; nothing was changed.
	ErrNeedsFsck = errors.New("filesystem is damaged")
)

var (
	errTxTooLarge = errors.New("transaction has too many lines")
	errNoSpace    = errors.New("no space left")
	errBadBlocks  = errors.New("bad blocks were found")
	errReadOnly   = errors.New("read-only filesystem")
)

// corruptf makes an ErrNeedsFsck that names the structure and its offset.
func corruptf(format string, a ...any) error {
	return fmt.Errorf("%w: %s; run daxfsd fsck", ErrNeedsFsck, fmt.Sprintf(format, a...))
}

// lostError is the answer of a commit that happened, while media took not all of the file
// data that the transaction carried.
type lostError struct{ error }

// Unwrap is what media said.
func (e lostError) Unwrap() error { return e.error }

// lost reports whether err says that the transaction happened all the same.
func lost(err error) bool {
	_, ok := err.(lostError)
	return ok
}

// errno speaks the language of the core's callers: the one place where errors of
// the packages below become a syscall.Errno.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var e syscall.Errno // on the heap: not before the usual case
	switch {
	case err == errNoSpace:
		return syscall.ENOSPC
	case err == errReadOnly, errors.Is(err, pmem.ErrReadOnly):
		return syscall.EROFS
	case errors.As(err, &e):
		return e
	case err == posixacl.ErrMalformed:
		return syscall.EINVAL
	case err == posixacl.ErrVersion:
		return syscall.EOPNOTSUPP
	case outOfStorage(err):
		return syscall.ENOSPC
	default: // media, checksum, anything unforeseen
		return syscall.EIO
	}
}

// outOfStorage reports whether the region's file is sparse and has no storage where it was accessed.
func outOfStorage(err error) bool {
	var m pmem.MediaError
	return errors.As(err, &m) && m.Cause == pmem.CauseNoStorage
}
