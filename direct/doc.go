// Package direct gives programs a file's own memory: the bytes of a file on a daxfsd mount, mapped
// from the region that holds them, without a system call for each access and without a copy in the
// kernel's page cache.
//
//	f, err := os.OpenFile("/mnt/cache", os.O_RDWR, 0)
//	d, err := direct.Open(f)
//	n, err := d.ReadAt(buf, off)               // copies; as os.File, but in 0.3 µs
//	m, err := d.Map(0, 1<<30, direct.MapOptions{Write: true, PageSize: 2 << 20})
//	copy(m.Bytes(), data); m.Flush(0, 1<<30)   // the file's memory itself
//
// The program must be allowed to open the region: whoever may is able to read, or write, all of it.
// Open says which permission is missing. Root, or a daemon, is not needed.
//
// # Types
//
//   - File is a file that is read and written by copying: ReadAt, WriteAt, Sync. What cannot be
//     done directly is done by pread(2) and pwrite(2): beyond the end of the file, in holes, and
//     when a budget is used up. So both always give the right result.
//   - Mapping is contiguous bytes of a file: Map, Bytes, Flush, Stale, Pin, Close.
//
// # What is promised
//
// WriteAt is durable when it returns, as far as the kind of region promises (on persistent memory,
// after a power loss). So are stores to a Mapping when Flush returns. The file's times, and what
// the kernel has cached for programs that map the file through the mount, are brought up to date by
// Sync, Flush and Close, not by each WriteAt.
//
// A ReadAt that runs at the same time as a write may see a part of the write, as between two
// programs that map one file. A ReadAt that begins when a write, a truncation or a hole punch of
// any program has returned sees it.
//
// Bytes of a Mapping stay what they were: when another program truncates the file, punches a hole
// or replaces blocks, the bytes belong to nobody else, but perhaps no longer to the file. Stale
// tells. While a writable Mapping exists, no block in it moves: its bytes are the file's until the
// file is truncated, punched or deleted there. A file has one generation for all that is granted of
// it, so Stale may also report a change elsewhere in the file.
//
// # Leases
//
// The kernel keeps the leases of what is mapped (shared locks of the region's open file
// description), so a program may die at any moment. A lease ends with the last mapping, also in
// children that were forked. Memory that hardware or an io_uring still uses after munmap(2) is
// protected only by Mapping.Pin.
//
// # Concurrency
//
// All methods of File and Mapping may be called from several goroutines at once, but for Close of a
// Mapping, after which nobody may use its bytes. The package starts no goroutine.
//
// # Hot path
//
// ReadAt and WriteAt of bytes that are mapped: a prefetch, two atomic additions to the window's
// users, three loads from the slot, one copy under the fault guard. TestNoAllocs proves that they
// allocate nothing.
//
// # When the normal way is taken
//
// Beyond the end of the file, and in a hole that WriteAt would fill; when a grant was refused, for
// 10 s, or for 1 s if there was no room for it; while another goroutine is just asking for a grant;
// and for 1 to 50 ms after the layout of the file has changed less than 10 ms after a grant. A
// grant is of up to 1 GiB to read. To write it is of 64 MiB at first, since what is unwritten is
// zeroed.
package direct
