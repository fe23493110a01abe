// Package protocol is what a program and the daemon say to each other about a file's own memory:
// the commands of ioctl(2) on an open file of the mount, the locks by which a lease is seen, and
// the slot by which a program sees that a file's layout has changed.
//
// # What it owns
//
// The encoding of requests and replies, and nothing else: it makes no system call, keeps no state,
// and imports neither the daemon nor the client. All integers are little-endian; all offsets and
// lengths are bytes.
//
// # Life of a grant
//
//	GRANT    the daemon answers which parts of the region hold a range of the file, and an id
//	lock     the program opens the region, locks these parts and the id's byte (Identity), maps
//	CONFIRM  the daemon sees the id's lock: from now on the lease is the lock's
//	COMMIT   after stores: times, and what the kernel has cached of the file
//	RELEASE  a hint that the locks may be gone
//
// # Versions
//
// Each request and reply begins with the version of its sender. A daemon answers a request of
// another version with its own version and nothing else, so that either side can say what the other
// speaks (ErrVersion).
package protocol
