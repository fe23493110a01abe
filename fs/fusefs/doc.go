// Package fusefs serves a mounted core (package fs) to the kernel over FUSE. Every method only
// translates: a request becomes one call of the core, an fs.Attr becomes a fuse.Attr, and a
// syscall.Errno becomes a fuse.Status.
//
// What it owns: the mount(2) call or the fusermount3 handshake, the INIT settings, and the request
// contexts. What it never does: decide anything about the filesystem, store to the region, log, or
// access the mount that it serves, which could block a thread that has to answer.
//
// Requests come from package transport. A queue serves the operations of transport.Queue (data,
// attributes, names) on the thread that read them. go-fuse parses all other requests and calls the
// Adapter for them, through a fuse.ProtocolServer. A fuse.Server beside it answers INIT and sends
// notifications; it never serves requests.
//
// Types:
//
//   - queue: one thread's entry to the core, a transport.Queue.
//   - Adapter: go-fuse's RawFileSystem, for the other requests. The nodeid is the inode number, the
//     generation is the inode's, and file handles are unused. So a restarted daemon understands
//     every ID that the kernel or an NFS client remembers.
//   - call: the core's arguments for one slow request (fs.Caller, fs.Attr), pooled.
//   - Conn, Server: a mount, from Attach through Start until Serve returns.
//   - Info, Activity, Grants: the values of the extended attributes InfoXattr, ActivityXattr and
//     GrantsXattr, which `daxfsd info`, `daxfsd top` and `daxfsd leases` read.
//
// After a change past the kernel's page cache, a notification makes the kernel drop its old pages
// before the change is answered (bypass.go). A thread that serves requests never sends one, since
// the kernel may need an answer from that thread first.
//
// Locks: it has none. A call belongs to one goroutine from get to put, and a queue to its thread. A
// READ's references to folios are dropped by fs.PinnedRead.Take, once the bytes are copied.
//
// The hot path is queue.go. TestReadAllocatesNothing and TestWriteAllocatesNothing prove that it
// does not allocate.
package fusefs
