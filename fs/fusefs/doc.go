// Package fusefs serves a mounted core (package fs) to the kernel over FUSE: it
// implements go-fuse's RawFileSystem and does nothing else. Every method is a
// translation: a request becomes one call of the core, an Attr becomes an
// EntryOut, a syscall.Errno becomes a fuse.Status.
//
// What it owns: the mount(2) call or the fusermount3 handshake, the INIT
// settings, and the request contexts. What it never does: decide anything about
// the filesystem, touch the region, log, or access the mount it serves (which
// could block a thread that has to answer).
//
// Types:
//
//   - Adapter: the RawFileSystem. nodeid is the inode number, the generation is
//     the inode's, and file handles carry nothing, so a restarted daemon
//     understands every id the kernel or an NFS client remembers.
//   - call: what one request needs (fs.Context, fs.Attr, the read result), pooled.
//   - Conn, Server: a mount, from Attach over Start until Serve returns.
//   - Info: what `daxfsd info MOUNTPOINT` reads from the root directory's
//     extended attribute InfoXattr.
//
// Locks: none of its own. A call belongs to one goroutine from get to put; the
// call of a READ is put back by Done, after the reply has been written.
//
// The hot path is Read and Write in data.go. TestReadAllocatesNothing and
// TestWriteAllocatesNothing prove that they allocate nothing themselves.
//
// Traps of go-fuse that the code steers around, each where it is steered:
// a READ reply of length zero is written without calling Done; a read result
// whose Slices fails is never answered at all; a nil read result with OK sends a
// recycled buffer to the reader; a result beside an error turns the error into OK.
package fusefs
