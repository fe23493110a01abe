// Package rangelock orders reads and writes of one file by byte range, so that a read sees each
// concurrent write completely or not at all. It is analogous to XFS's shared and exclusive IOLOCK,
// but for a range.
//
// It owns a queue of the ranges that are held or waited for. It does not depend on files, and takes
// no other lock.
//
// The lock is on the path of every read and write. An uncontended Lock, TryLock or Unlock allocates
// nothing once the queue has grown to its usual length (TestAllocs).
package rangelock
