// Package fsck checks and repairs a filesystem on its media. It shares the format
// (fs/layout) with the core and nothing else: it never imports fs, so that a
// mistake of the core is not repeated by the one who checks it.
//
// It looks at the media as recovery would leave them: committed journal records
// are laid over the media in memory (repairing, they are replayed first). What
// recovery does by itself is no problem: committed records, orphans and
// interrupted truncations of a filesystem that was not unmounted are counted, not
// reported.
//
// A check is a pass of four steps, each in a file of its own:
//
//   - chunks: chunk map, chunk headers, block types
//   - inodes: their lines, their extents, who claims which block
//   - dirs: dentries, names, targets
//   - tree: reachability and link counts
//
// Repairing, every pass mends what it can by small transactions of its own, written
// through the journal like the core's, and passes are repeated until one has
// nothing to mend. What a pass could not read it does not draw conclusions from: if
// a directory is incomplete, nothing is called unreachable.
//
// The caller owns the region exclusively for the time of the call. Nothing here is
// safe for concurrent use.
package fsck
