package pmem

import (
	"errors"
	"fmt"
	"os"
)

// The errors of a region. Errors of Open, Create and the primitives wrap one of these where one
// applies; test with errors.Is.
var (
	ErrBusy        = errors.New("region is in use")
	ErrMedia       = errors.New("region memory cannot be accessed")
	ErrReadOnly    = errors.New("region is open read-only")
	ErrNotRegion   = errors.New("not a region")
	ErrTooSmall    = errors.New("region is too small")
	ErrTooLarge    = errors.New("region is too large")
	ErrEmpty       = fmt.Errorf("%w: it has 0 bytes", ErrTooSmall)
	ErrNoRoom      = errors.New("there is no room for the region")
	ErrCancelled   = errors.New("cancelled")
	ErrTruncated   = errors.New("region is truncated")
	ErrWouldShrink = errors.New("region would shrink")
	ErrRange       = errors.New("range is outside the region or misaligned")
)

// Cause is why memory could not be accessed, as far as it is known.
type Cause int

const (
	// CauseUnknown is poisoned media, or any other cause that causeAt cannot distinguish.
	CauseUnknown Cause = iota
	// CauseTruncated is a region whose file ends before the offset.
	CauseTruncated
	// CauseNoStorage is a hole in the region's file, for which its filesystem had no storage.
	CauseNoStorage
	// CauseDisk is a failure of the filesystem or the disk that the region's file is on.
	CauseDisk
)

// OutOfStorage reports whether err is a MediaError because the region's file is sparse and had no
// storage for the offset.
func OutOfStorage(err error) bool {
	var m MediaError
	return errors.As(err, &m) && m.Cause == CauseNoStorage
}

// MediaError is a load, store or flush that raised SIGBUS. It is ErrMedia.
type MediaError struct {
	Path  string // path of the region
	Off   int64  // byte offset in the region that faulted
	Cause Cause
}

// Error names the region, the offset and the cause.
func (e MediaError) Error() string {
	why := ""
	switch e.Cause {
	case CauseTruncated:
		why = "the file was truncated"
	case CauseNoStorage:
		why = "the file is sparse, and its filesystem is full or a quota used up"
	case CauseDisk:
		why = "the filesystem or disk that the file is on failed"
	default:
		why = "poisoned media, or the file was truncated"
	}
	return fmt.Sprintf("pmem: %s: memory at offset %d cannot be accessed: %s", e.Path, e.Off, why)
}

// Is makes errors.Is(err, ErrMedia) true.
func (e MediaError) Is(target error) bool { return target == ErrMedia }

// RangeError is a call whose range is not in the region, or whose offset does not have the
// alignment that the call needs. It is ErrRange.
type RangeError struct {
	Op     string // the method
	Off, N int64  // bytes
	Size   int64  // size of the region in bytes
}

// Error names the call, the range and the region's size.
func (e RangeError) Error() string {
	return fmt.Sprintf("pmem: %s of %d bytes at offset %d: outside the region of %d bytes, or misaligned", e.Op, e.N, e.Off, e.Size)
}

// Is makes errors.Is(err, ErrRange) true.
func (e RangeError) Is(target error) bool { return target == ErrRange }

// refuse returns the error of a primitive that may not run. It is called only if the primitive may
// not.
func (r *Region) refuse(op string, off, n int64, store bool) error {
	switch {
	case r.closed:
		return fmt.Errorf("pmem: %s: %s: %w", r.path, op, os.ErrClosed)
	case store && r.readOnly:
		return ErrReadOnly
	}
	return RangeError{Op: op, Off: off, N: n, Size: r.size}
}
