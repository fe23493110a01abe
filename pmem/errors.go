package pmem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// The ways a region can be refused or fail. What Open, Create and the primitives
// return wraps one of these where one applies; test with errors.Is.
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

// Cause is why memory could not be accessed, as far as can be told.
type Cause int

const (
	// CauseUnknown: poisoned media, or any of the others that was not looked for.
	CauseUnknown Cause = iota
	// CauseTruncated: the region's file ends before.
	CauseTruncated
	// CauseNoStorage: the region's file has a hole there, and its filesystem had no storage for it.
	CauseNoStorage
	// CauseDisk: the filesystem or the disk that the region's file is on failed.
	CauseDisk
)

// OutOfStorage reports whether err is that the region's file is sparse and has no storage where
// it was accessed.
func OutOfStorage(err error) bool {
	var m MediaError
	return errors.As(err, &m) && m.Cause == CauseNoStorage
}

// MediaError is a load, store or flush that the memory answered with SIGBUS. It is ErrMedia.
type MediaError struct {
	Path  string // the region
	Off   int64  // byte offset in the region of the access that faulted
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

// RangeError is a call whose range does not lie in the region, or whose offset
// has not the alignment the call asks for. It is ErrRange.
type RangeError struct {
	Op     string // the method
	Off, N int64  // bytes
	Size   int64  // of the region, bytes
}

// Error names the call, the range and the region's size.
func (e RangeError) Error() string {
	return fmt.Sprintf("pmem: %s of %d bytes at offset %d: outside the region of %d bytes, or misaligned", e.Op, e.N, e.Off, e.Size)
}

// Is makes errors.Is(err, ErrRange) true.
func (e RangeError) Is(target error) bool { return target == ErrRange }

// refuse says why a primitive may not run. It is only called when one may not.
func (r *Region) refuse(op string, off, n int64, store bool) error {
	switch {
	case r.closed:
		return fmt.Errorf("pmem: %s: %s: %w", r.path, op, os.ErrClosed)
	case store && r.readOnly:
		return ErrReadOnly
	}
	return RangeError{Op: op, Off: off, N: n, Size: r.size}
}

// guard ends a guarded function. It is deferred as
//
//	defer r.guard(debug.SetPanicOnFault(true), &err)
//
// which turns faults of this goroutine into panics until guard has put the
// previous setting back. A fault in the region becomes ErrMedia; everything else
// goes on panicking.
func (r *Region) guard(old bool, err *error) {
	debug.SetPanicOnFault(old)
	if p := recover(); p != nil {
		*err = r.mediaError(p)
	}
}

// mediaError translates a recovered panic, or panics again with it.
func (r *Region) mediaError(p any) error {
	if f, ok := p.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		for _, base := range [2]uintptr{r.wbase, r.robase} {
			if base != 0 && f.Addr() >= base && f.Addr()-base < uintptr(r.size) {
				off := int64(f.Addr() - base)
				return MediaError{Path: r.path, Off: off, Cause: r.causeAt(off)}
			}
		}
	}
	panic(p)
}

// causeAt asks the region's file why byte off faulted.
func (r *Region) causeAt(off int64) Cause {
	var st unix.Stat_t
	if r.file == nil || r.kind == KindDevDax || unix.Fstat(int(r.file.Fd()), &st) != nil {
		return CauseUnknown
	}
	page := off &^ (pageSize - 1)
	data, _ := nextData(r.file, page, st.Size)
	switch {
	case off >= st.Size:
		return CauseTruncated
	case r.kind == KindHugetlb, data > page: // hugetlbfs does not tell its holes
		return CauseNoStorage
	case r.kind == KindFSDax:
		return CauseUnknown
	}
	return CauseDisk
}
