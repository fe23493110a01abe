// Package fsck checks and repairs a filesystem on its media. It shares the format (fs/layout) and
// the owner record (fs/owner) with the core, and nothing else: it never imports fs, so that it does
// not repeat a mistake of the core.
//
// A check is a dry run of the repair. The same code stores to an image, which keeps the stores in
// DRAM beside the region and returns them to later loads. So a check and a repair report the same
// problems, including those that other repairs uncover. Only the image, and the code that claims
// the region, know which of the two is running.
//
// It checks the media as recovery would leave them: committed journal records are replayed first.
// What recovery does by itself is not a problem: committed records, orphans and interrupted
// truncations of a filesystem that was not unmounted are counted, not reported.
//
// A check is a pass of four steps, each in a file of its own:
//
//   - chunks: chunk map, chunk headers, block types
//   - inodes: their lines, their extents, and the blocks that they claim
//   - dirs: dentries, names, targets
//   - tree: reachability and link counts
//
// Every pass repairs what it can in small transactions, written through the journal like the
// core's. Passes are repeated until one has nothing to repair. A pass draws no conclusions from
// what it could not read: if a directory is incomplete, nothing is reported as unreachable.
//
// Workers read, one goroutine judges. A worker per CPU reads, verifies and decodes inodes with
// their extents and attributes, and directory blocks. The caller's goroutine judges the results in
// the order of the media; only this goroutine claims blocks, reports and repairs. So the report
// does not depend on the number of workers (TestWorkers). At most 4 items per worker are read and
// not yet judged: of 8 inode blocks, with at most 8 extent blocks an inode, or of 16 directory
// blocks. A longer chain of extent blocks is read when its inode is judged, by all workers at once.
//
// Other memory: 7 bits a block (224 MiB for a tebibyte), 56 bytes an inode slot and about 100 bytes
// a directory; all extents of directories, and of one file at a time (40 bytes each, twice while
// they are read); a hash and an offset for each name of one directory at a time. Damage costs about
// 500 bytes a problem while it is reported, and in a dry run 64 bytes for each changed line. Every
// size on the media is compared with the size of the region before it is used.
//
// A repair takes free blocks only if it has read everything that could claim them: for an inode
// block, directory block or extent block of lost+found, or for a new metadata chunk.
//
// The fuzz targets FuzzDamage and FuzzUse (in the tests) damage lines, with and without sealing
// them again. FuzzDamage and FuzzCraft compare each dry run with the repair, as TestDryRun does for
// each kind of damage.
//
// The caller must own the region exclusively during a call. Nothing here is safe for concurrent
// use.
package fsck
