// Package lease knows which programs map which blocks of the region, and for how long.
//
// # What it owns
//
// The grants of a mount: their ids, the blocks that each keeps from being reused (as leases of
// refcnt), the slots in which programs see that a file's layout has changed, and the judgement, by
// the locks that the kernel keeps, of whether anybody still maps a block. It knows no inode and no
// extent, decides nothing about permissions, starts no goroutine and encodes no message.
//
// # Words
//
//   - A grant is a promise of the daemon to a program: it may map these blocks of this file. Grant.
//   - A lease is the lock that stands for a confirmed grant: a shared lock of the kernel on the
//     byte that identifies the grant, taken on the open file description through which the program
//     maps the region. It ends with the last mapping, in whatever process.
//   - A found lease is the lock of a program that a former daemon served: blocks without a grant.
//   - A slot is a line of the region that all programs which map a file can read: a generation, and
//     the size of the file. A grant whose generation is no longer the slot's is stale.
//
// # States of a grant
//
//	promised  Add; its blocks are leased        Confirm sees the lock -> confirmed
//	                                            CloseHandle, Look     -> gone
//	                                            Sweep, if it expired  -> gone
//	confirmed                                   Sweep misses the lock -> ended
//	ended     its blocks stay leased a moment   Sweep, later          -> gone
//	gone      its blocks are not leased by it
//
// A grant is stale or not in each of these states: its blocks are kept all the same.
//
// # Concurrency
//
// All methods may be called concurrently; but the caller serialises Add, BeginChange with
// EndChange, and Drop of one file (with the inode's lock), so that a grant is made of blocks that
// the file has. Table.mu is taken before the locks of refcnt, and no callback is called while it is
// held.
package lease
