package format

import (
	"fmt"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// ReadSuper reads the first superblock or, if that is damaged, the second one; fromBackup reports
// which. The error is layout.ErrMagic for a region that holds no daxfsd, layout.ErrVersion for a
// newer format, and layout.ErrChecksum if both superblocks are damaged.
func ReadSuper(r *pmem.Region) (s *layout.Superblock, fromBackup bool, err error) {
	var b [layout.SuperSize]byte
	if r.Size() < MinSize {
		return nil, false, fmt.Errorf("region of %d bytes is too small to hold a daxfsd: %w", r.Size(), layout.ErrMagic)
	}
	if err = r.Load(0, b[:]); err == nil {
		if s, err = layout.DecodeSuper(b[:], 0); err == nil {
			return s, false, checkSize(r, s)
		}
	}
	first := err
	off := lastBlock(r)
	if err := r.Load(off, b[:]); err == nil {
		if s, err := layout.DecodeSuper(b[:], off); err == nil && s.BackupOff == off {
			return s, true, checkSize(r, s)
		}
	}
	return nil, false, first
}

// lastBlock returns the region offset of the region's last whole block.
func lastBlock(r *pmem.Region) int64 { return r.Size()&^(layout.BlockSize-1) - layout.BlockSize }

func checkSize(r *pmem.Region, s *layout.Superblock) error {
	if s.Size > r.Size() {
		return fmt.Errorf("region is truncated: it has %d bytes, the filesystem on it needs %d; restore the region's size and try again", r.Size(), s.Size)
	}
	return nil
}

// AlignError is the error for a device-dax that can only be mapped in larger pieces than the
// filesystem on it was made for. Both fields are in bytes.
type AlignError struct{ Found, Want int64 }

// Error returns a message with both alignments.
func (e *AlignError) Error() string {
	return fmt.Sprintf("region has an alignment of %d bytes, the filesystem on it was made for %d", e.Found, e.Want)
}

// CheckAlign returns an AlignError if the region is a device-dax that cannot be mapped in pieces of
// the filesystem's mapping granule. On all other regions the pages are small enough.
func CheckAlign(r *pmem.Region, s *layout.Superblock) error {
	if r.Kind() == pmem.KindDevDax && r.Align() > s.Granule {
		return &AlignError{Found: r.Align(), Want: s.Granule}
	}
	return nil
}
