package fs

import (
	"github.com/daxfsd/daxfsd/fs/format"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// The core's callers use these names instead of importing fs/format.
type (
	// MkfsOptions are the options of Mkfs.
	MkfsOptions = format.Options
	// AlignError reports a device-dax whose mapping granule is larger than the filesystem's.
	AlignError = format.AlignError
)

// MinSize and MaxSize are the smallest and the largest filesystem in bytes.
const (
	MinSize = format.MinSize
	MaxSize = format.MaxSize
)

// Mkfs makes a filesystem on the region; see format.Mkfs.
func Mkfs(r *pmem.Region, o MkfsOptions) (*layout.Superblock, error) { return format.Mkfs(r, o) }

// ReadSuper reads the superblock; see format.ReadSuper.
func ReadSuper(r *pmem.Region) (s *layout.Superblock, fromBackup bool, err error) {
	return format.ReadSuper(r)
}

// CheckAlign compares the region's mapping granule with the filesystem's; see format.CheckAlign.
func CheckAlign(r *pmem.Region, s *layout.Superblock) error { return format.CheckAlign(r, s) }
