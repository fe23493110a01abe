package pmem

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Part is a part of a region, and its place in a Window. All numbers are bytes.
type Part struct {
	Off int64 // offset in the region; a multiple of its Align
	At  int64 // offset in the window; a multiple of the host's page size
	N   int64 // length
	// Zeros says that the part is of no region: it reads as zeros, and cannot be stored to.
	Zeros bool
	// ReadOnly says that the part cannot be stored to, although others can.
	ReadOnly bool
}

// WindowOptions are the options of Mapper.Window.
type WindowOptions struct {
	Write bool  // stores are allowed; the descriptor is open for them
	Size  int64 // bytes of address space that the window takes
	// Modulus is a power of two, and the window's address is Rest modulo Modulus. So pages of this
	// size can map a part whose Off and At+Rest are equal modulo the size.
	Modulus, Rest int64
	// Beside, if not nil, is a file whose first page is mapped behind the window, without any
	// access: the file stays in use as long as the window is mapped.
	Beside *os.File
}

// Window is parts of a region that are mapped through one open file description, in one range of
// addresses. What no part covers cannot be accessed.
//
// All methods but Close may be called from several goroutines at once.
type Window struct {
	mapped

	m     *Mapper
	parts []Part // in ascending order of At
	start unsafe.Pointer
	room  uintptr // bytes from start, to unmap
}

// Window maps parts of the region through f, a descriptor that Open returned, which may be closed
// afterwards. The parts are in ascending order of At, and do not overlap.
func (m *Mapper) Window(f *os.File, parts []Part, o WindowOptions) (*Window, error) {
	page := int64(os.Getpagesize())
	size := (o.Size + page - 1) &^ (page - 1)
	mod := max(o.Modulus, page)
	room := uintptr(size + mod + page)
	start, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("pmem: reserve %d bytes of addresses: %w", room, err)
	}
	// The window begins at the first suitable address, and the rest is given back.
	head := uintptr(o.Rest-int64(uintptr(start))) & uintptr(mod-1)
	w := &Window{m: m, parts: parts, start: unsafe.Add(start, head), room: uintptr(size)}
	if head > 0 {
		unix.MunmapPtr(start, head)
	}
	tail := w.room
	if o.Beside != nil {
		tail += uintptr(page)
	}
	unix.MunmapPtr(unsafe.Add(w.start, tail), room-head-tail)
	w.room = tail
	if err := w.mapParts(f, &o, size, page); err != nil {
		w.Close()
		return nil, err
	}
	w.ro = unsafe.Slice((*byte)(w.start), size)
	if o.Write {
		w.w = w.ro
	}
	w.fault = w.mediaError
	w.setBases()
	return w, nil
}

// mapParts maps the parts over the reserved addresses, and a page of o.Beside at offset size.
func (w *Window) mapParts(f *os.File, o *WindowOptions, size, page int64) error {
	flags := unix.MAP_SHARED | unix.MAP_FIXED
	if w.m.kind == KindFSDax {
		flags = unix.MAP_SHARED_VALIDATE | unix.MAP_SYNC | unix.MAP_FIXED
	}
	for _, p := range w.parts {
		if (p.At|p.Off|p.N)&(page-1) != 0 || p.N <= 0 || p.At < 0 || p.N > size-p.At || !p.Zeros && (p.Off < 0 || p.N > w.m.size-p.Off) {
			return RangeError{Op: "Window", Off: p.Off, N: p.N, Size: w.m.size}
		}
		prot := unix.PROT_READ
		if o.Write && !p.ReadOnly {
			prot |= unix.PROT_WRITE
		}
		at, err := unsafe.Add(w.start, p.At), error(nil)
		if p.Zeros {
			_, err = unix.MmapPtr(-1, 0, at, uintptr(p.N), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED)
		} else {
			_, err = unix.MmapPtr(int(f.Fd()), p.Off, at, uintptr(p.N), prot, flags)
		}
		if err != nil {
			return fmt.Errorf("pmem: map %d bytes at offset %d of %s (%s): %w", p.N, p.Off, w.m.Path(), w.m.kind, err)
		}
		if p.N >= 2<<20 && !p.Zeros && (w.m.kind == KindFile || w.m.kind == KindTmpfs) {
			unix.Madvise(unsafe.Slice((*byte)(at), p.N), unix.MADV_HUGEPAGE) // a hint, which not every kernel follows
		}
	}
	if o.Beside != nil {
		if _, err := unix.MmapPtr(int(o.Beside.Fd()), 0, unsafe.Add(w.start, size), uintptr(page), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_FIXED); err != nil {
			return &os.PathError{Op: "map", Path: o.Beside.Name(), Err: err}
		}
	}
	return nil
}

// mediaError returns the error of an access to byte offset at of the window that raised a signal.
func (w *Window) mediaError(at int64) error {
	for _, p := range w.parts {
		if !p.Zeros && p.At <= at && at-p.At < p.N {
			off := p.Off + at - p.At
			return MediaError{Path: w.m.Path(), Off: off, Cause: causeAt(w.m.base, w.m.kind, off)}
		}
	}
	return RangeError{Op: "access", Off: at, Size: int64(len(w.ro))}
}

// Close unmaps the window. Nothing may use it any more, nor slices that Bytes returned.
func (w *Window) Close() error {
	if w.start == nil {
		return nil
	}
	err := unix.MunmapPtr(w.start, w.room)
	w.start, w.ro, w.w = nil, nil, nil
	if err != nil {
		return fmt.Errorf("pmem: unmap: %w", err)
	}
	return nil
}

// load8 loads 8 bytes at p, a multiple of 8, with one load, as this machine orders them.
func load8(p []byte) uint64 {
	_ = p[7]
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&p[0])))
}
