package pmem

import (
	"fmt"
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// mapAll makes the mappings: a writable one for the primitives, unless read-only, and a PROT_READ
// one for all other code.
func (r *Region) mapAll(o *Options) error {
	fail := func(err error) error {
		return fmt.Errorf("pmem: map %d bytes of %s (%s): %w", r.size, r.path, r.kind, err)
	}
	if r.readOnly && (r.kind == KindFile || r.kind == KindTmpfs) {
		// No requests are served from this mapping: plain flags are enough.
		m, err := mmap.MapRegion(r.file, int(r.size), mmap.RDONLY, 0, 0)
		if err != nil {
			return fail(err)
		}
		r.ro = m
		r.unmap = append(r.unmap, m.Unmap)
	} else {
		flags := unix.MAP_SHARED
		if r.kind == KindFSDax && !o.hooks.noSync {
			flags = unix.MAP_SHARED_VALIDATE | unix.MAP_SYNC
		}
		var err error
		if r.ro, err = r.mapAligned(unix.PROT_READ, flags); err != nil {
			return fail(err)
		}
		if !r.readOnly {
			if r.w, err = r.mapAligned(unix.PROT_READ|unix.PROT_WRITE, flags); err != nil {
				return fail(err)
			}
		}
	}
	r.setBases()
	return nil
}

// setBases records where the mappings start.
func (m *mapped) setBases() {
	m.wbase = uintptr(unsafe.Pointer(unsafe.SliceData(m.w)))
	m.robase = uintptr(unsafe.Pointer(unsafe.SliceData(m.ro)))
}

// mapAligned maps the whole region at an address at which the largest pages fit: a multiple of 2
// MiB, of 1 GiB if the region is that large, and of its align. It reserves more address space than
// needed, maps over the aligned part, and unmaps the rest.
func (r *Region) mapAligned(prot, flags int) ([]byte, error) {
	align := max(2<<20, uintptr(r.align))
	if r.size >= 1<<30 {
		align = max(1<<30, align)
	}
	size := uintptr(r.size)
	room := size + align
	start, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	head := -uintptr(start) & (align - 1)
	p := unsafe.Add(start, head)
	if _, err := unix.MmapPtr(int(r.file.Fd()), 0, p, size, prot, flags|unix.MAP_FIXED); err != nil {
		unix.MunmapPtr(start, room)
		return nil, err
	}
	if head > 0 {
		unix.MunmapPtr(start, head)
	}
	// If the length is not a multiple of the host's page size, its last page is used as a whole.
	page := uintptr(unix.Getpagesize())
	if end := (size + page - 1) &^ (page - 1); head+end < room {
		unix.MunmapPtr(unsafe.Add(p, end), room-head-end)
	}
	r.unmap = append(r.unmap, func() error { return unix.MunmapPtr(p, size) })
	b := unsafe.Slice((*byte)(p), size)
	if r.kind == KindFile || r.kind == KindTmpfs {
		unix.Madvise(b, unix.MADV_HUGEPAGE) // a hint, which not every kernel follows
	}
	return b, nil
}

// NewMemory makes a volatile region of size bytes, a multiple of 4096, in Go's own heap. It is for
// tests: the race detector watches no other memory. Its one array is both mappings, so a stray
// store through Bytes does not fault here.
func NewMemory(size int64) (*Region, error) {
	if size <= 0 || size%pageSize != 0 {
		return nil, fmt.Errorf("pmem: memory region of %d bytes: a positive multiple of %d was expected", size, pageSize)
	}
	b := make([]byte, size+pageSize)
	head := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (pageSize - 1)
	b = b[head:][:size:size]
	r := &Region{kind: KindMemory, size: size, align: pageSize, path: "memory", mapped: mapped{w: b, ro: b}, locked: true, memory: memories.Add(1)}
	r.fault = r.mediaError
	r.setBases()
	return r, nil
}
