// Package owner decides which process uses a region. It reads, judges and writes the owner record
// and the heartbeat beside it. Mount, fsck and mkfs all use it, so their decisions agree.
//
// # What it owns
//
// The package owns two lines of the region (layout.Owner, layout.Beat), and the goroutine that
// writes the second one. It takes no lock of other packages, and never touches any other line.
//
// # Why a lock is not enough
//
// pmem.Open takes a flock. The kernel releases it when its holder ends, also by kill -9. A flock
// belongs to an inode: it excludes all processes that open the same file or device node on the same
// kernel. It does not exclude a process that uses another node of the same device (a container has
// its own), the file below an overlay, a guest whose memory is the file, or another machine that
// shares the CXL memory. In these cases the record decides.
//
// # Words
//
//   - A user of a region is a process that has mounted or is repairing it: User.
//   - The record is what the last user wrote before it changed anything: Record. It contains a
//     random mount id, new with each claim.
//   - A heartbeat is a line that the user rewrites every second with its mount id and a count.
//   - A verdict is what a record means to this process: Verdict.
//   - A claim is the record and heartbeat of this process: Claim.
//
// # States of a record, as another process sees them
//
//	Clean    the region was unmounted
//	Unused   its user is gone; the next mount recovers the filesystem
//	InUse    its user is alive and uses this memory
//	Unclear  neither can be proved; the administrator decides (takeover)
//
//	Clean  -- Take --> a claim -- Release --> Clean
//	                  | the user dies               -> Unused
//	                  | the user is stopped         -> InUse or Unclear if its process is visible,
//	                  |                                else judged by its silence
//	                  | another user takes over     -> the claim is lost: ErrLost at the next Beat
//
// # How a record is judged
//
// The rules are tried in this order; the first that matches decides. A heartbeat is silent if it
// has not changed for five of its intervals while it was watched.
//
//	state is clean                                          Clean
//	this boot, written through the inode that we locked     Unused: its user had that lock
//	this boot, pid namespace visible, process gone          Unused
//	this boot, the user is this process                     Unused: it knows that it has no mount
//	the heartbeat advances                                  InUse
//	silent, this boot, process visible, our inode           InUse
//	silent, this boot, process stopped                      Unclear
//	silent, this boot, process alive, not a regular file    Unclear: the process may hang
//	silent, this boot, process alive, another inode         Unused: this region is a copy
//	silent, this boot, process not visible                  Unused
//	silent, owner record torn                               Unused
//	silent, another boot of this machine                    Unused
//	silent, another machine                                 Unclear
//
// So a kill -9 is noticed at once on the same kernel, even after a change of the host name. A
// killed container that had a device node of its own is noticed after five seconds.
//
// If the region is a regular file and its record names another inode, on any machine, then the file
// was copied while it was mounted, or its filesystem has been given another device number since.
// Such a copy was not made at one instant, so the commands check it before they use it. If the
// record is of another boot, only the inode numbers are compared, because device numbers may differ
// between boots. An image restored into the same inode is not recognised as a copy, nor is a copy
// of a clean region.
//
// # A stopped user
//
// A daemon that is stopped (SIGSTOP, a frozen container, a paused guest) is silent. If its process
// is visible to the judging process, it keeps the region; otherwise it loses the region. Therefore
// a user checks, before each beat, that the record still contains its own mount id. If not, the
// user stops all reads and changes; it does not even write "clean". Operations that were under way
// when it was stopped may still be stored, until its first beat.
//
// # Programs that map the region
//
// Programs that a daemon has granted blocks keep them by locks of the kernel on the inode through
// which they reached the region, also when the daemon is gone. A third line (layout.Mapped) says
// that there may be such programs, and names the inode. Through another device node of the same
// device their locks are not seen: then a verdict that would be Clean or Unused is Unclear, until a
// reboot.
//
// A beat never rewrites the owner record. If two users find each other, the record names the one
// that claimed the region last.
//
// # Whose memory
//
// Record and heartbeat are read through the caches of the CPU. A user on another host is noticed
// only if the shared memory is cache-coherent between the hosts. Otherwise an old copy of its
// heartbeat is judged, and looks silent.
//
// # A user that only reads
//
// A mount with -o ro, fsck -n and info judge the record, but write none. So processes that reach
// the region through another inode do not notice them.
package owner
