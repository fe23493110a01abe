// Package journal makes changes of metadata lines atomic and durable: a redo journal with
// independent lanes, as libpmemobj has them.
//
// # What it owns
//
// The lanes on media, the transactions, their replay, the reading and formatting of whole metadata
// lines, and the filesystem's failure: once media failed under a transaction nothing is changed any
// more. It never decides what a line means, never allocates space, and takes no lock of its
// callers.
//
// # Types
//
//   - Journal: the lanes of one mounted filesystem.
//   - Tx: a set of whole lines, and of pieces of file data, that change together.
//   - Hooks: what a Journal reports to its user.
//
// # Life of a slot
//
// A lane has two record slots, used in turn:
//
//	empty -> committed (its record is on media) -> checkpointed (every line of the record is
//	durable in place) -> overwritten
//
// A record is checkpointed without a fence of its own: the next transaction of the lane, which
// writes the other slot, flushes the lines that this one stored in place before its own commit
// fence. So when the turn comes back to this slot its lines are durable, and a metadata transaction
// costs one fence.
//
// A record never rolls back a newer change made through another lane: each line carries the
// sequence of the last transaction that changed it, and recovery skips lines that are as new.
//
// # Logged records
//
// A transaction that carries file data, or more lines than a slot holds, has its tables and data in
// a body, space outside the lanes that the user of the package provides (UseBodies). See
// commitLogged.
//
// # Lock order
//
// A lane's mutex is held from Begin to the end of Commit or Abort, and while Checkpoint runs.
// Inside it Hooks are called, and a body may be waited for, by a caller that waits for nothing
// more. TestCommitAllocs proves that a transaction allocates nothing.
package journal
