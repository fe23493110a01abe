// Package metaspace allocates the space of metadata: single blocks of metadata chunks, and inode
// slots within inode blocks.
//
// # What it owns
//
// The package owns the chunk map and the chunk headers on media, and the bitmaps of free blocks in
// DRAM. The bitmaps are rebuilt at mount (Load, Claim, AddInodeBlock), or restored from a saved
// free map (Restore). The package does not know the owners of blocks. It gets whole chunks from the
// user of the package, and gives them back to it.
//
// # Life of a chunk
//
//	data space -> (header formatted, chunk-map bit set by a transaction) -> metadata
//	-> (last block freed, bit cleared by a transaction, journal checkpointed) -> data space
//
// The journal is checkpointed because otherwise a record that is still in a lane could be replayed
// over a file's data.
//
// # Life of a block within a chunk
//
//	free -> in use by one inode -> free
//
// Inode blocks are also listed in the chunk header, so that a mount finds them. An inode slot is
// free, then reserved by AllocInode, then in use once a transaction writes its core line.
//
// # Lock order
//
// Space.mu is taken before a lane of the journal, and is held while Hooks are called. It is not
// visible outside the package.
package metaspace
