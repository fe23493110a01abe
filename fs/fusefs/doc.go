// Package fusefs serves a mounted core (package fs) to the kernel over FUSE. Every method is a
// translation: a request becomes one call of the core, an Attr becomes an
// EntryOut, a syscall.Errno becomes a fuse.Status. It does nothing else.
//
// What it owns: the mount(2) call or the fusermount3 handshake, the INIT
// settings, and the request contexts. What it never does: decide anything about
// the filesystem, touch the region, log, or access the mount it serves (which
// could block a thread that has to answer).
//
// Requests come from package transport. Those that must be fast (READ, WRITE, GETATTR, LOOKUP,
// RELEASE, FSYNC, FORGET) are served by a queue on the thread that read them; all others by
// go-fuse, which parses them and calls the Adapter: a fuse.ProtocolServer does it, and a
// fuse.Server beside it, which answered INIT and never serves, sends notifications.
//
// Types:
//
//   - queue: one thread's entry, a transport.Queue.
//   - Adapter: go-fuse's RawFileSystem, for the rest. nodeid is the inode number, the generation is
//     the inode's, and file handles carry nothing, so a restarted daemon
//     understands every id the kernel or an NFS client remembers.
//   - call: what one slow request needs (fs.Caller, fs.Attr), pooled.
//   - Conn, Server: a mount, from Attach over Start until Serve returns.
//   - Info, Activity: what `daxfsd info MOUNTPOINT` and `daxfsd top MOUNTPOINT` read from the root
//     directory's extended attributes InfoXattr and ActivityXattr.
//
// A change past the kernel's page cache is followed by a notification that drops old pages, before
// it is answered (bypass.go): never from a thread that serves requests, since the kernel may need
// an answer first.
//
// Locks: none of its own. A call belongs to one goroutine from get to put, a queue to its thread;
// what a READ's reply holds is given back by Done, after the answer has been written.
//
// The hot path is queue.go. TestReadAllocatesNothing and
// TestWriteAllocatesNothing prove that it allocates nothing.
package fusefs
