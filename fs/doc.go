// Package fs is the filesystem: inodes, directories, extents, transactions and POSIX
// semantics over a persistent-memory region. It returns errors as syscall.Errno and knows no
// FUSE; fs/fusefs adapts it.
//
// # What it owns
//
// The inode cache, the content of files and directories in DRAM, and the decision when a block is
// free. It never stores to the region other than through pmem, and never keeps a copy of file data.
// It never blocks while it holds a lane, except to get a large body (journal/logged.go).
//
// # Five nouns
//
//   - A line: 64 bytes of metadata that change as a whole (layout.Line).
//   - A transaction (journal.Tx): a set of lines that change together; one fence.
//   - A lane (fs/journal): a slice of the journal, which holds a transaction's redo record until
//     its lines are in place.
//   - An extent: a run of a file's blocks that is contiguous in the region; a slot on media, an
//     entry of the pagecache.Space in DRAM.
//   - A pinned read (PinnedRead): slices of the region, with the references that keep them valid.
//
// # The journey of one write(2)
//
// FS.Write calls FS.overwrite, which changes data only: it takes no lock but the byte range, and
// needs no transaction and one fence. All other writes go through FS.extendPiece, with
// FS.planLocked, FS.storePiece, remap.commit, and journal.Tx.Commit. With Options.Atomic,
// FS.overwriteLogged replaces FS.overwrite, and the record is a logged record where data is
// replaced. A read goes through FS.Read, FS.read, FS.refRun, and PinnedRead.Done.
//
// # Lock order
//
// From first to last; a lock is only taken while holding locks above it.
//
//	freeing.large             while a large orphan is freed in the background, with none held
//	lease.Table.sweeping      while it is looked which leases have ended, with none held
//	FS.rename                 renames between directories
//	  inode.rl                byte range of a file (rangelock.Lock)
//	    inode.io              held for a whole operation on extents; two files: by number
//	      inode.mu            held for one transaction. Directories: parent before child (the
//	                          second directory of a rename is only tried, see lockDirs), before
//	                          files, else by number
//	      icacheShard.mu
//	        xattrCache.mu     a leaf
//	      metaspace.Space.mu  metadata blocks and inode slots; may run transactions
//	        journal.lane.mu   held from Begin to Commit; the holder takes nothing else, except a
//	                          large body (journal/logged.go), and then waits for nothing more
//	        Direct.record     whether any program maps the region; stores to the owner record
//	        lease.Table.mu    grants; stores to slots
//	            hugepage.Allocator, refcnt.Table: locks of their own, leaves
//	          badmem.List.mu  writes the bad-range list, without a lane
//	      kernelPages.mu      which changes the kernel's page cache may lack (bypass.go); reads
//	                          the region
//
// More leaves: defrag.mu (candidate files of compaction), damage.mu (messages), Waiters.mu.
//
// The media do not decide this order. A directory is locked below another one only if its parent
// field agrees with the entry. It is locked as a parent only if its own parents lead up to the root
// (child.go).
//
// rl and io may be held long, and the rename mutex for some milliseconds. A thread that holds a
// directory's mu waits for none of these locks, and neither does a request with Caller.NoWait
// (iolock.go). A file's space and ext change under io and mu, so either suffices to read them.
//
// So an operation allocates first, then begins its transaction, commits, and frees
// last. TestReadWriteAllocs proves that reading and writing allocate nothing.
package fs
