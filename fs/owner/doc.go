// Package owner decides who uses a region: it reads, judges and writes the owner record and the
// heartbeat beside it. Mount, fsck and mkfs all ask it, and so decide alike.
//
// # What it owns
//
// Two lines of the region (layout.Owner, layout.Beat), and the goroutine that writes the second
// one. It never waits for a lock of others, and never touches any other line.
//
// # Why a lock is not enough
//
// pmem.Open takes a flock, which ends with its holder, kill -9 included. The kernel keeps it per
// inode: it excludes everybody who opens the same file or device node on the same kernel. Another
// node of the same device (a container has its own), the file below an overlay, a guest whose
// memory the file is, or another machine at the same CXL memory are not excluded. There the record
// speaks.
//
// # Words
//
//   - A user of a region is a process that has mounted or is repairing it: User.
//   - The record is what the last user wrote before it changed anything: Record. It has a random
//     mount id, new with each claim.
//   - A heartbeat is a line that the user rewrites every second with its mount id and a count.
//   - A verdict is what a record means to us: Verdict.
//   - A claim is our own record and heartbeat: Claim.
//
// # States of a record, as another process sees them
//
//	Clean    it was unmounted
//	Unused   its user is gone: the filesystem recovers
//	InUse    its user is alive, and uses this memory
//	Unclear  neither can be known: the administrator says (takeover)
//
//	Clean  -- Take --> a claim -- Release --> Clean
//	                  | the user dies               -> Unused
//	                  | the user is stopped         -> InUse by its process, Unused by its silence
//	                  | another takes the region    -> the claim is lost: ErrLost at the next Beat
//
// # How a record is judged
//
// In this order; the first line that fits decides. "Silent" is a heartbeat that has not changed for
// five of its intervals while we watched it.
//
//	state is clean                                          Clean
//	this boot, and written through the inode we have locked Unused: its user had that lock
//	this boot, pid namespace visible, process gone          Unused
//	this boot, it is our own process                        Unused: we know that we do not use it
//	the heartbeat advances                                  InUse
//	silent, this boot, process alive, not a regular file    Unclear: it hangs or is stopped
//	silent, this boot, process stopped                      Unclear
//	silent, this boot, process alive, another inode         Unused: this is a copy
//	silent, this boot                                       Unused
//	silent, another boot of this machine                    Unused
//	silent, another machine                                 Unclear
//
// A kill -9 is therefore seen at once by the same kernel, whatever the host is called, and a killed
// container after five seconds, if it had a device node of its own. A regular file whose record
// names another inode, on whatever machine, was copied while it was mounted, or its filesystem has
// another number since: such a copy was not made at one instant, so the commands check it before
// they use it. Of another boot only the inode numbers are compared: devices may have other numbers
// since. An image that is restored into the same inode is not recognised, nor a copy of a clean
// region.
//
// # A stopped user
//
// A daemon that is stopped (SIGSTOP, a frozen container, a paused guest) is silent. Where its
// process can be seen it keeps the region; elsewhere it loses it. So a user looks, before each
// beat, whether the record still has its mount id. If not, it reads and changes nothing any more:
// it does not even write "clean". What it had under way when it was stopped may still be stored,
// until its first beat.
//
// The owner record itself is never rewritten by a beat: two users that find each other are told
// apart by who wrote it last.
//
// # Whose memory
//
// Record and heartbeat are read through the caches of the CPU. A user on another host is seen only
// if the memory that both share is cache-coherent between them; else an old copy of its heartbeat
// is judged, and looks silent.
//
// # A user that only reads
//
// A mount with -o ro, fsck -n and info judge the record, and write none: through another inode
// nobody sees them.
package owner
