package fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pmem"
	"github.com/daxfsd/daxfsd/refcnt"
)

// Mount recovers the filesystem on the region and makes it usable. The region must be open
// exclusively. If Mount fails, it has changed nothing that recovery would not change again. With
// the free map that a clean unmount saved, its time does not depend on the number of files. Without
// that map it reads all inodes.
//
// Persistence order:
//  1. heartbeat, SFENCE; owner record: mounted, by us, and no free map is saved; SFENCE
//     (owner.Take)
//  2. the journal is replayed and emptied (journal.Recover)
//  3. ranges that the kernel knows to be bad are added to the bad-range list
//     (badmem.List.StartSaving)
//  4. orphans are freed, interrupted truncations finished, and empty inode blocks and chunks given
//     back, each by transactions
func Mount(region *pmem.Region, options Options) (*FS, error) {
	sb, backup, err := ReadSuper(region)
	if err != nil {
		return nil, err
	}
	if err := CheckAlign(region, sb); err != nil {
		return nil, err
	}
	if sb.ROCompat&^layout.KnownROCompat != 0 && !options.ReadOnly {
		return nil, fmt.Errorf("the filesystem has features %#x that this program can only read: mount it with -o ro", sb.ROCompat)
	}
	if options.Atomic && sb.Incompat&layout.IncompatLogged == 0 {
		return nil, errors.New("the filesystem was made by a daxfsd that did not know -o atomic: mount it without, or make it anew")
	}
	fs := &FS{r: region, sb: sb, opt: options}
	if backup {
		fs.warn("the first superblock is damaged, using the second; run daxfsd fsck -y to restore it")
	}
	fs.bad = badmem.New(region, sb, fs.warn)
	fs.pools.pinnedReads.New = func() any { return newPinnedRead(fs) }
	fs.pools.dirBatches.New = func() any { return newDirBatch() }
	for i := range fs.icache {
		fs.icache[i].m = make(map[uint64]*inode)
	}
	fs.journal = journal.New(region, sb, fs.atomic(), journal.Hooks{
		MediaFailed: func(err error) { fs.bad.Faulted(err) },
		FreshFailed: func(block, n uint64, err error) { fs.bad.FreshFaulted(block, n, err) },
		Damaged:     fs.met,
		Warn:        fs.warn,
	})
	if err := fs.newSpace(); err != nil {
		return nil, err
	}
	fs.freeing.init(fs)
	fs.pageSize.Times = 100
	fs.defrag.fs, fs.defrag.turn = fs, make(chan struct{}, 1)
	fs.free.bind(fs)
	fs.reserve.fs = fs
	if err := fs.mount(); err != nil {
		fs.owner.end()
		fs.table.Close()
		return nil, fs.mountError(err)
	}
	return fs, nil
}

// mountReport is the result of the mount. It is immutable after the mount.
type mountReport struct {
	fromFreeMap bool   // free space comes from the saved free map: the mount read no inode
	replayed    int    // journal records that were replayed
	orphans     int    // orphans that were freed
	fixed       uint64 // blocks of the fixed area, the slots and the second superblock
}

// newSpace makes the allocator, the folio table and the metadata space anew, with all blocks free.
func (fs *FS) newSpace() (err error) {
	fs.meta = fs.newMeta()
	orders := hugepage.Orders{PMD: uint8(fs.chunkShift()), PUD: fs.sb.PUDShift - layout.BlockShift}
	if fs.alloc, err = hugepage.NewAllocator(fs.sb.Blocks(), orders); err != nil {
		return err
	}
	t, err := refcnt.New(fs.sb.Blocks(), orders.PMD, orders.PUD)
	if err == nil {
		fs.table = t
	}
	return err
}

func (fs *FS) mount() error {
	if err := fs.bad.Load(); err != nil {
		return err
	}
	if err := fs.owner.take(fs); err != nil {
		return err
	}
	var seq uint64
	var err error
	if fs.opt.ReadOnly {
		n, err := fs.journal.Pending()
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("the journal holds %d records that must be replayed first: mount once without -o ro", n)
		}
	} else if fs.mounted.replayed, seq, err = fs.journal.Recover(); err != nil {
		return err
	}
	scan := newScan(fs)
	if fs.owner.saved.Map.Block != 0 && fs.mounted.replayed == 0 && !fs.opt.Scan {
		err := scan.loadFreeMap()
		if fs.mounted.fromFreeMap = err == nil; !fs.mounted.fromFreeMap {
			fs.warn("the saved free map is not used, all inodes are read: %v", err)
			old := fs.table
			if err := fs.newSpace(); err != nil {
				return err
			}
			old.Close()
			fs.defrag.forget()
			scan = newScan(fs)
		}
	}
	if fs.mounted.fromFreeMap {
		fs.table.Doubt(fs.doubt)
	} else if err := scan.run(); err != nil {
		return err
	}
	fs.journal.SetSeq(max(seq, scan.seq.Load(), fs.owner.seq))
	fs.offlineBad()
	if err := fs.saveBad(); err != nil {
		return err
	}
	if err := fs.direct.start(fs); err != nil {
		return err
	}
	fs.reserve.keep()
	if !fs.opt.ReadOnly {
		if err := scan.finish(); err != nil {
			return err
		}
	}
	if fs.atomic() {
		if err := fs.openBodies(); err != nil {
			return err
		}
	}
	root, e := fs.get(layout.RootIno) // stays cached while mounted
	if e != 0 || !root.isDir() {
		return corruptf("the root directory at offset %d cannot be read", fs.sb.InodeBase)
	}
	if fs.opt.BeatInterval > 0 { // a mount that claimed the region at the same moment has done so by now
		if err := fs.Beat(); errors.Is(err, owner.ErrLost) {
			return err
		}
	}
	fs.startBackground()
	return nil
}

// Unmount makes the filesystem clean. No call may be in flight. It drops the kernel's references,
// so orphans are freed. The region stays open.
//
// Persistence order:
//  1. lazily kept times and freed orphans, each separately
//  2. the journal is checkpointed: every line is in place
//  3. the free map, in free blocks; SFENCE (saveFreeMap)
//  4. owner record: clean, and where the free map is; SFENCE (owner.Claim.Release)
func (fs *FS) Unmount() error {
	fs.background.end()
	fs.direct.left()
	for i := range fs.icache {
		s := &fs.icache[i]
		s.mu.Lock()
		var all []*inode
		for _, in := range s.m {
			all = append(all, in)
		}
		s.mu.Unlock()
		for _, in := range all {
			fs.put(in, in.refs.Load())
		}
	}
	fs.background.wg.Wait() // large orphans
	defer fs.table.Close()
	defer fs.owner.end() // not before the owner record says clean
	if fs.opt.ReadOnly {
		return nil
	}
	if fs.journal.Failed() {
		return syscall.EIO
	}
	if err := fs.journal.Checkpoint(); err != nil {
		return err
	}
	fs.closeBodies()
	ref := fs.saveFreeMap()
	if err := fs.r.Sync(0, fs.sb.Size); err != nil {
		return err
	}
	return fs.owner.release(fs.journal.Seq(), fs.damage.found.Load(), ref)
}

// Abandon ends the filesystem as the death of the daemon would: nothing more is stored, and the
// next mount recovers. No call may be in flight. The region stays open.
func (fs *FS) Abandon() {
	fs.background.end()
	fs.owner.end()
	fs.table.Close()
}
