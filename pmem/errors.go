package pmem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
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

// MediaError is a load, store or flush that the memory answered with SIGBUS: the
// media is poisoned, or the file was truncated under the mapping. It is ErrMedia.
type MediaError struct {
	Path string // the region
	Off  int64  // byte offset in the region of the access that faulted
}

// Error names the region and the offset.
func (e MediaError) Error() string {
	return fmt.Sprintf("pmem: %s: memory at offset %d cannot be accessed: poisoned media, or the file was truncated", e.Path, e.Off)
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
				return MediaError{Path: r.path, Off: int64(f.Addr() - base)}
			}
		}
	}
	panic(p)
}
