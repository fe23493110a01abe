package fs

import (
	"errors"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/metaspace"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/fs/posixacl"
	"github.com/daxfsd/daxfsd/pmem"
)

// Errors of Mount and Mkfs. They are wrapped in one sentence that says what was found and what to
// do.
var (
	// ErrInUse: the owner record names a user that is alive, or may be.
	ErrInUse = owner.ErrInUse
	// ErrNeedsFsck: a structure is damaged; nothing was changed.
	ErrNeedsFsck = layout.ErrDamaged
)

var (
	errNoSpace   = metaspace.ErrNoSpace
	errBadBlocks = errors.New("bad blocks were found")
	errReadOnly  = errors.New("read-only filesystem")
)

// corruptf is layout.Damagedf.
func corruptf(format string, a ...any) error { return layout.Damagedf(format, a...) }

// errno translates an error of the packages below into a syscall.Errno. No other function does
// that.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e // for example ENOENT of a missing name
	}
	var e syscall.Errno // escapes to the heap: after the usual cases
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
	case pmem.OutOfStorage(err):
		return syscall.ENOSPC
	default: // media, checksum, anything unforeseen
		return syscall.EIO
	}
}
