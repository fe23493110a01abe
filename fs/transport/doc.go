// Package transport carries requests from the kernel's FUSE to a filesystem, and the answers
// back. It reads every request of a connection, parses in place those that must be fast, calls
// the filesystem's Queue for them without allocating anything, and hands all others, as they
// came, to its SlowPath.
//
// Types:
//
//   - Filesystem: what is served. It makes a Queue for each thread that serves requests, and
//     answers slow requests itself.
//   - Queue: one thread's entry to the filesystem. It is called by that thread alone.
//   - Uring: queues of io_uring that are ready, before the kernel is told to use them.
//   - Server: a connection that is being served: from Dev or Uring.Serve until the kernel ends it.
//   - Stats, Operation, Histogram: what was served, how often and how fast. Each queue counts for
//     itself, in memory of its own.
//   - Request: what Options.Trace is told of each request, if anybody wants to know.
//   - InHeader, OutHeader, ReadIn, WriteIn and so on: the kernel's structures (include/uapi/
//     linux/fuse.h), by its names in Go's spelling.
//
// The device transport (dev.go): each queue has a clone of the connection's descriptor
// (FUSE_DEV_IOC_CLONE) and an operating system thread of its own, which reads a request, serves
// it and writes the answer with writev(2). READ copies from the region into the queue's memory,
// which stays in the CPU's caches and in one huge page: sent from the region itself, of which the
// kernel has to pin each page, the same answer takes longer, and the kernel may not survive reading
// poison. A slow request goes to a goroutine with buffers of its own, since it may block and
// allocates.
//
// The io_uring transport (uring.go): one queue for each possible CPU, whose thread stays on it,
// with places for a few requests each. A request comes with the completion of the place's command,
// and one system call gives the answers back and waits for the next. READ copies from the region
// into the place's payload, WRITE stores from there. A slow request keeps its place until its
// goroutine has answered; an eventfd wakes the thread, since no other may use the ring. What the
// kernel does not send over rings (FORGET, INTERRUPT) one more queue reads from /dev/fuse.
//
// A queue's thread looks for its next request for a while before it sleeps, if nobody else wants
// the CPUs (poll.go): by entering the ring without waiting, or by reading a second clone, which
// does not block. It stays on its CPU then. Whoever serves gives its process the priority that this
// wants (Prioritize, priority.go).
//
// What a queue does must not wait for another request: if all queues did, nobody would read that
// one. Where the filesystem would have to wait, a Queue answers SlowPath instead, and the request
// is served again, from its beginning, on a goroutine.
//
// Whatever comes from the kernel is checked: a request that is shorter than it says, or than its
// operation's structure, or larger than was negotiated, is answered with EIO, or dropped if
// there is no answering it.
package transport
