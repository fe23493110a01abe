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

// Errors of Mount and Mkfs. They come wrapped in one sentence that says what was
// found and what to do.
var (
	// ErrInUse: the owner record names a live user, or one of which that is unclear.
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

// errno speaks the language of the core's callers: the one place where errors of
// the packages below become a syscall.Errno.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	if e, ok := err.(syscall.Errno); ok {
		return e // as of a name that is missing
	}
	var e syscall.Errno // on the heap: not before the usual cases
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
