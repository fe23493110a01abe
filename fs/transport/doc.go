// Package transport reads requests from the kernel's FUSE and writes the answers back. It parses in
// place the requests that must be fast, and calls the filesystem's Queue for them without
// allocating. It hands all other requests, unparsed, to the filesystem's SlowPath.
//
// Types:
//
//   - Filesystem: what a connection serves. It makes a Queue for each thread that serves,
//     and answers slow requests itself.
//   - Queue: one thread's entry to the filesystem. Only that thread calls it.
//   - Uring: io_uring queues that are ready, before the kernel is told to use them.
//   - Server: a connection that is being served, from Dev or Uring.Serve until the kernel ends it.
//   - Stats, Operation, Histogram: counts, errors and latencies of the operations served. Each
//     queue counts in memory of its own.
//   - Request: a served request, as Options.Trace receives it.
//   - InHeader, OutHeader, ReadIn, WriteIn and so on: the kernel's structures
//     (include/uapi/linux/fuse.h), under the kernel's names in Go's spelling.
//
// The device transport (dev.go): each queue has a clone of the connection's descriptor
// (FUSE_DEV_IOC_CLONE) and an operating system thread of its own. The thread reads a request,
// serves it and writes the answer with writev(2). READ copies from the region into the queue's
// memory, which stays in the CPU's caches and in one huge page. To send the region's own memory
// takes longer, because the kernel must pin each page, and the kernel may not survive reading
// poison. A slow request goes to a goroutine with buffers of its own, since it may block and
// allocates.
//
// The io_uring transport (uring.go): one queue for each possible CPU, whose thread stays on that
// CPU. A queue has several ring entries, each with room for one request. The completion of an
// entry's command delivers a request; one system call gives the answers back and waits for the next
// request. READ copies from the region into the entry's payload, WRITE stores from the payload. A
// slow request keeps its entry until its goroutine has answered; an eventfd then wakes the thread,
// since no other thread may use the ring. Requests that the kernel does not send over rings
// (FORGET, INTERRUPT) are read from /dev/fuse by one more queue.
//
// A queue's thread looks for its next request for a while before it sleeps, if no other thread
// wants the CPUs (poll.go). It does so by entering the ring without waiting, or by reading a
// second, non-blocking clone, and it stays on its CPU meanwhile. The daemon gives its process the
// priority that this needs (Prioritize, priority.go).
//
// A Queue must not wait for another request: if all queues did, no thread would read that request.
// Where the filesystem would have to wait, the Queue answers SlowPath instead. The request is then
// served again, from its beginning, on a goroutine.
//
// Everything from the kernel is checked. A request that is shorter than its header or its
// operation's structure requires, or larger than was negotiated, is answered with EIO, or dropped
// if it cannot be answered.
//
// TestServeAllocatesNothing and TestUringServeAllocatesNothing prove that the hot path does not
// allocate.
package transport
