package pmem

import (
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// mapped is memory of a region that this process has mapped. The guarded bodies of the primitives
// are its methods, which Region and Window share. Byte offsets count from its first byte.
type mapped struct {
	w  []byte // the writable mapping of the primitives; nil when read-only
	ro []byte // the PROT_READ mapping, of which Bytes returns parts; a Window has one for both

	wbase, robase uintptr // addresses of the mappings, to recognise their faults

	// fault returns the error of an access to byte offset off that raised SIGBUS.
	fault func(off int64) error
}

// in reports whether n bytes at byte offset off are mapped.
func (m *mapped) in(off, n int64) bool {
	return off >= 0 && n >= 0 && off <= int64(len(m.ro))-n
}

// guard ends a guarded function. It is deferred as
//
//	defer m.guard(debug.SetPanicOnFault(true), &err)
//
// which turns faults of this goroutine into panics until guard restores the previous setting. guard
// turns a fault in the mapped memory into an error, and panics again with anything else.
func (m *mapped) guard(old bool, err *error) {
	debug.SetPanicOnFault(old)
	if p := recover(); p != nil {
		*err = m.faultError(p)
	}
}

// faultError returns the error of a recovered panic, or panics again with it.
func (m *mapped) faultError(p any) error {
	if f, ok := p.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		for _, base := range [2]uintptr{m.wbase, m.robase} {
			if base != 0 && f.Addr() >= base && f.Addr()-base < uintptr(len(m.ro)) {
				return m.fault(int64(f.Addr() - base))
			}
		}
	}
	panic(p)
}

// mediaError returns the error of an access to byte offset off of the region that raised SIGBUS.
func (r *Region) mediaError(off int64) error {
	return MediaError{Path: r.path, Off: off, Cause: causeAt(r.file, r.kind, off)}
}

// causeAt returns why byte off of a region faulted, as far as the region's file shows it. f is nil
// for memory of this process.
func causeAt(f *os.File, kind Kind, off int64) Cause {
	var st unix.Stat_t
	if f == nil || kind == KindDevDax || unix.Fstat(int(f.Fd()), &st) != nil {
		return CauseUnknown
	}
	page := off &^ (pageSize - 1)
	data, _ := nextData(f, page, st.Size)
	switch {
	case off >= st.Size:
		return CauseTruncated
	case kind == KindHugetlb, data > page: // hugetlbfs does not report holes
		return CauseNoStorage
	case kind == KindFSDax:
		return CauseUnknown
	}
	return CauseDisk
}
