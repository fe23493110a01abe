// Package fsck checks and repairs a filesystem on its media. It shares the format
// (fs/layout) with the core and nothing else: it never imports fs, so that a
// mistake of the core is not repeated by the one who checks it.
//
// A check is a dry run of the repair: the same code stores to an image, which keeps what it is told
// to beside the region, where it is read again. So both report the same problems, those too that
// other repairs uncover, and nothing but the image (and whoever claims the region) knows which of
// the two it is.
//
// It looks at the media as recovery would leave them: committed journal records are replayed first.
// What recovery does by itself is no problem: committed records, orphans and interrupted
// truncations of a filesystem that was not unmounted are counted, not reported.
//
// A check is a pass of four steps, each in a file of its own:
//
//   - chunks: chunk map, chunk headers, block types
//   - inodes: their lines, their extents, who claims which block
//   - dirs: dentries, names, targets
//   - tree: reachability and link counts
//
// Every pass mends what it can by small transactions of its own, written
// through the journal like the core's, and passes are repeated until one has
// nothing to mend. What a pass could not read it does not draw conclusions from: if
// a directory is incomplete, nothing is called unreachable.
//
// Workers look, one judges: inodes with their extents and attributes, and directory blocks,
// are read, verified and decoded by a worker per CPU, and what they saw is judged in the
// order of the media by the caller's goroutine, which alone claims blocks, reports and
// mends. So the report does not depend on how many look (TestWorkers). What is on its way
// from the ones to the other is at most 4 pieces a worker: of 8 inode blocks, with at most
// 8 extent blocks an inode, or of 16 directory blocks. A longer chain of extent blocks is
// read when its inode is judged, by all workers at once.
//
// Memory, besides: 4 bits a block (128 MiB for a tebibyte), 40 bytes an inode slot and
// some 100 a directory, all extents of directories and of one file at a time (40 bytes
// each, twice while it is read), a hash and a place for each name of one directory at a time. What
// is damaged costs some 500 bytes a problem while it is reported, and a dry run 64 bytes for each
// line it changes. Nothing that the media say is believed before it is compared with the size of
// the region.
//
// A repair takes free blocks only where all that could claim them was read: for
// lost+found an inode block, a directory block, an extent block, or a new metadata chunk.
//
// The fuzz targets FuzzDamage and FuzzUse (in the tests) damage lines, sealed again or not;
// FuzzDamage and FuzzCraft compare each dry run with the repair, as TestDryRun does for each kind
// of damage.
//
// The caller owns the region exclusively for the time of the call. Nothing here is
// safe for concurrent use.
package fsck
