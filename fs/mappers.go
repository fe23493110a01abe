package fs

import "syscall"

// A program stores to the kernel's pages of a file through a shared mapping, for which it must open
// the file for reading and writing. The kernel writes such pages back before the last mapping goes,
// and releases the open file after that. So while no program has the file open for reading and
// writing, the kernel has no page of the file that is newer than the region.

// opensMappable reports whether open flags O_* allow the file to be mapped for storing.
func opensMappable(flags uint32) bool { return flags&syscall.O_ACCMODE == syscall.O_RDWR }

// Opened records that a file was created and opened with flags O_*. Open records this itself.
func (fs *FS) Opened(ino uint64, flags uint32) {
	if !opensMappable(flags) {
		return
	}
	if in, e := fs.get(ino); e == 0 {
		in.mappers.Add(1)
		fs.put(in, 1)
	}
}

// Release ends one open of a file with flags O_*, and makes lazily kept times durable.
func (fs *FS) Release(ctx *Caller, ino uint64, flags uint32) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	if opensMappable(flags) {
		for n := in.mappers.Load(); n > 0 && !in.mappers.CompareAndSwap(n, n-1); n = in.mappers.Load() {
		}
	}
	err := fs.flushTimes(in)
	fs.put(in, 1)
	return errno(err)
}

// MayBeMapped reports whether the kernel may have pages of a file that a program has stored to.
func (fs *FS) MayBeMapped(ino uint64) bool {
	in, e := fs.get(ino)
	if e != 0 {
		return false
	}
	n := in.mappers.Load()
	fs.put(in, 1)
	return n > 0
}
