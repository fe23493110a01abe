package fs

import (
	"github.com/daxfsd/daxfsd/fs/format"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// The core's callers know fs/format by these names.
type (
	// MkfsOptions are the choices of Mkfs.
	MkfsOptions = format.Options
	// AlignError is a device-dax that cannot be mapped in pieces as small as the filesystem needs.
	AlignError = format.AlignError
)

// MinSize and MaxSize are the smallest and the largest filesystem in bytes.
const (
	MinSize = format.MinSize
	MaxSize = format.MaxSize
)

// Mkfs is format.Mkfs.
func Mkfs(r *pmem.Region, o MkfsOptions) (*layout.Superblock, error) { return format.Mkfs(r, o) }

// ReadSuper is format.ReadSuper.
func ReadSuper(r *pmem.Region) (s *layout.Superblock, fromBackup bool, err error) {
	return format.ReadSuper(r)
}

// CheckAlign is format.CheckAlign.
func CheckAlign(r *pmem.Region, s *layout.Superblock) error { return format.CheckAlign(r, s) }
