package fstest

import (
	"bytes"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
)

// Write writes all of data at a byte offset.
func (v *Volume) Write(ino uint64, off int64, data []byte) {
	v.Helper()
	n, e := v.FS.Write(&v.Ctx, ino, off, data)
	if e != 0 || n != len(data) {
		v.Fatalf("write at %d: %d of %d bytes, %v", off, n, len(data), e)
	}
}

// Read returns up to n bytes at a byte offset, from the pinned blocks themselves.
func (v *Volume) Read(ino uint64, off int64, n int) []byte {
	v.Helper()
	r := v.FS.NewPinnedRead()
	defer r.Free()
	v.OK(v.FS.Read(&v.Ctx, ino, off, n, r))
	b := bytes.Join(r.Slices(), nil)
	if len(b) != r.Len() {
		v.Fatalf("the read has %d bytes, and Len is %d", len(b), r.Len())
	}
	r.Done()
	return b
}

// Take is Read by PinnedRead.Take, as a transport reads: a copy that survives bad memory.
func (v *Volume) Take(ino uint64, off int64, n int) ([]byte, syscall.Errno) {
	r := v.FS.NewPinnedRead()
	defer r.Free()
	if e := v.FS.Read(&v.Ctx, ino, off, n, r); e != 0 {
		return nil, e
	}
	b := make([]byte, n)
	m, e := r.Take(b)
	return b[:m], e
}

// Stat returns the attributes of an inode.
func (v *Volume) Stat(ino uint64) (a fs.Attr) {
	v.Helper()
	v.OK(v.FS.GetAttr(&v.Ctx, ino, &a))
	return a
}

// Truncate sets the size of a file in bytes.
func (v *Volume) Truncate(ino, size uint64) {
	v.Helper()
	v.OK(v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: size}, new(fs.Attr)))
}

// Fallocate calls FS.Fallocate for n bytes at a byte offset.
func (v *Volume) Fallocate(ino uint64, mode uint32, off, n int64) {
	v.Helper()
	v.OK(v.FS.Fallocate(&v.Ctx, ino, mode, off, n))
}

// Clone shares n bytes of src with dst. Large folios of src may stay split afterwards.
func (v *Volume) Clone(src uint64, srcOff int64, dst uint64, dstOff, n int64) {
	v.Helper()
	v.Unmerged = true
	for n > 0 {
		m, e := v.FS.CopyRange(&v.Ctx, src, srcOff, dst, dstOff, n)
		if e != 0 || m == 0 {
			v.Fatalf("%d bytes left: copied %d, %v", n, m, e)
		}
		srcOff, dstOff, n = srcOff+m, dstOff+m, n-m
	}
}

// Extents returns the extents of a file, adjacent ones merged.
func (v *Volume) Extents(ino uint64) (es []fs.ExtentInfo) {
	v.Helper()
	v.OK(v.FS.Extents(&v.Ctx, ino, 0, func(x fs.ExtentInfo) bool {
		if n := len(es); n > 0 && es[n-1].Logical+es[n-1].Len == x.Logical && es[n-1].Block+es[n-1].Len == x.Block {
			es[n-1].Len += x.Len
		} else {
			es = append(es, x)
		}
		return true
	}))
	return es
}

// SetXattr sets an extended attribute, new or existing.
func (v *Volume) SetXattr(ino uint64, name string, value []byte) {
	v.Helper()
	v.OK(v.FS.SetXattr(&v.Ctx, ino, name, value, 0))
}

// Xattr returns the value of an extended attribute.
func (v *Volume) Xattr(ino uint64, name string) []byte {
	v.Helper()
	n, e := v.FS.GetXattr(&v.Ctx, ino, name, nil)
	v.OK(e)
	buf := make([]byte, n+1)
	n, e = v.FS.GetXattr(&v.Ctx, ino, name, buf)
	v.OK(e)
	return buf[:n]
}
