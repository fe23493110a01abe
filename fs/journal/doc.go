// Package journal makes changes of metadata lines atomic and durable. It is a redo journal with
// independent lanes, as in libpmemobj.
//
// # What it owns
//
// The package owns the lanes on media, the transactions and their replay. It reads and formats
// whole metadata lines. It also owns the failure state of the filesystem: once the media have
// failed under a transaction, nothing is changed any more. It never interprets a line, never
// allocates space, and takes no lock of its callers.
//
// # Types
//
//   - Journal: the lanes of one mounted filesystem.
//   - Tx: a set of whole lines and pieces of file data that change together.
//   - Hooks: what a Journal reports to its user.
//
// # Life of a slot
//
// A lane has two record slots, used in turn:
//
//	empty -> committed (its record is on media) -> checkpointed (every line of the record is
//	durable in place) -> overwritten
//
// A record is checkpointed without a fence of its own. The next transaction of the lane writes the
// other slot; before its commit fence it flushes the lines that this record stored in place. When
// this slot is used again, its lines are therefore durable. So a metadata transaction costs one
// fence.
//
// A record never rolls back a newer change made through another lane. Each line carries the
// sequence of the last transaction that changed it, and recovery skips a line whose place holds one
// with the same or a higher sequence.
//
// # Logged records
//
// A transaction that carries file data, or more lines than a slot holds, stores its tables and data
// in a body. A body is space outside the lanes that the user of the package provides (UseBodies).
// See commitLogged.
//
// # Lock order
//
// A lane's mutex is held from Begin to the end of Commit or Abort, and while Checkpoint runs. While
// it is held, Hooks are called, and commitLogged may wait for a free body; a caller that holds a
// body waits for nothing more.
//
// TestCommitAllocs proves that a transaction allocates nothing.
package journal
