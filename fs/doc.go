// Package fs is the filesystem: inodes, directories, extents, transactions and POSIX
// semantics over a persistent-memory region. It speaks syscall.Errno and knows no
// FUSE; fs/fusefs adapts it.
//
// # What it owns
//
// The inode cache, what files and directories are made of, and the decision when a block is free.
// What it never does: store to the region other than through pmem, block while a lane is held (but
// for a body), or keep a copy of file data.
//
// # Five nouns
//
//   - A line: 64 bytes of metadata that change as a whole (layout.Line).
//   - A transaction (journal.Tx): a set of lines that change together; one fence.
//   - A lane (fs/journal): where a transaction's redo record lies until its lines are in place.
//   - An extent: a run of a file's blocks; a slot on media, an entry of the
//     pagecache.Space in DRAM.
//   - A reply: slices of the region, with the references that keep them valid.
//
// # The journey of one write(2)
//
// FS.Write, FS.overwrite (nothing but data changes: no lock but the byte range, no transaction, one
// fence), or FS.extendPiece with FS.planLocked, FS.storePiece, remap.commit, and journal.Tx.Commit.
// With Options.Atomic FS.overwriteLogged stands for FS.overwrite, and the record is a logged one
// where data is replaced. Read: FS.Read, FS.read, FS.refRun, Reply.Done.
//
// # Lock order
//
// From first to last; a lock is only taken while holding locks above it.
//
//	freeing.large             while a large orphan is freed in the background, with none held
//	FS.rename                 renames between directories
//	  inode.rl                byte range of a file (rangelock.Lock)
//	    inode.io              held for a whole operation on extents; two files: by number
//	      inode.mu            held for one transaction. Directories: parent before child (the
//	                          second of a rename's is tried only, see lockDirs), before files,
//	                          else by number
//	      icacheShard.mu
//	        xattrCache.mu     a leaf
//	      metaspace.Space.mu  metadata blocks and inode slots; may run transactions
//	        journal.lane.mu   held from Begin to Commit; nothing else is taken inside, but a body
//	                          (journal/logged.go) by a caller that then waits for nothing more
//	          hugepage.Allocator, refcnt.Table: locks of their own, leaves
//	          badmem.List.mu  writes the bad-range list, without a lane
//	      kernelPages.mu      which changes the kernel's page cache may lack (bypass.go); reads
//	                          the region
//
// Leaves, too: defrag.mu (files that compaction looks at), damage.mu (messages), Waiters.mu.
//
// Media do not decide this order: a directory is locked below another one only where its parent
// field agrees with the entry, and as a parent only where its own parents lead up to the root
// (child.go).
//
// rl and io may be held long, and the rename mutex for some milliseconds: whoever holds a
// directory's mu waits for none of them, and a request with Caller.NoWait neither (iolock.go). A
// file's space and ext change under io and mu, so either suffices to read them.
//
// So an operation allocates first, then begins its transaction, commits, and frees
// last. TestReadWriteAllocs proves that reading and writing allocate nothing.
package fs
