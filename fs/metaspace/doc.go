// Package metaspace hands out what metadata is made of: single blocks of metadata chunks, and inode
// slots within inode blocks.
//
// # What it owns
//
// The chunk map and the chunk headers on media, and in DRAM the bitmaps of what is free. Those are
// rebuilt at mount (Load, Claim, AddInodeBlock), or restored from a saved free map. It never knows
// who uses a block, and gets whole chunks from, and gives them back to, the user of the package.
//
// # Life of a chunk
//
//	data space -> (header formatted, chunk-map bit set by a transaction) -> metadata
//	-> (last block freed, bit cleared by a transaction, journal checkpointed) -> data space
//
// The journal is checkpointed because a record that is still in a lane would otherwise be replayed
// over a file's data.
//
// # Life of a block within a chunk
//
//	free -> in use by one inode -> free
//
// Inode blocks are listed in the chunk header besides, so that a mount finds them. An inode slot is
// free, then reserved by AllocInode, then in use once a transaction writes its core line.
//
// # Lock order
//
// Space.mu is taken before a lane of the journal, and while Hooks are called. Nobody else sees it.
package metaspace
