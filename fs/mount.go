package fs

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/fs/owner"
	"github.com/daxfs/daxfs/hugepage"
	"github.com/daxfs/daxfs/pmem"
	"github.com/daxfs/daxfs/refcnt"
)

// Mount recovers the filesystem on the region and makes it usable. The region
// must be open exclusively. After an error nothing was changed that recovery does
// not change again. The free map that a clean unmount saved makes it independent of the
// number of files; else all inodes are read.
//
// Persistence order:
//  1. heartbeat, SFENCE; owner record: mounted, by us, and no free map is saved; SFENCE (owner.Take)
//  2. the journal is replayed and emptied (recoverJournal)
//  3. the bad-range list says what the kernel knows to be bad (saveBad)
//  4. orphans are freed, interrupted truncations finished, and inode blocks and chunks
//     that are empty given back, each by transactions
func Mount(r *pmem.Region, o Options) (*FS, error) {
	sb, backup, err := ReadSuper(r)
	if err != nil {
		return nil, err
	}
	if err := CheckAlign(r, sb); err != nil {
		return nil, err
	}
	if sb.ROCompat&^layout.KnownROCompat != 0 && !o.ReadOnly {
		return nil, fmt.Errorf("the filesystem has features %#x that this program can only read: mount it with -o ro", sb.ROCompat)
	}
	if o.Atomic && sb.Incompat&layout.IncompatLogged == 0 {
		return nil, errors.New("the filesystem was made by a daxfsd that did not know -o atomic: mount it without, or make it anew")
	}
	fs := &FS{r: r, sb: sb, seed: layout.Seed(sb.UUID), opt: o}
	if backup {
		fs.warn("the first superblock is damaged, using the second; run daxfsd fsck -y to restore it")
	}
	fs.blockBufs.New = func() any { return new([layout.BlockSize]byte) }
	fs.replies.New = func() any { return newReply(fs) }
	fs.dirBatches.New = func() any { return newDirBatch() }
	for i := range fs.icache {
		fs.icache[i].m = make(map[uint64]*inode)
	}
	for i := 0; i < int(sb.Lanes); i++ {
		fs.lanes = append(fs.lanes, newLane(fs, i))
	}
	if err := fs.newSpace(); err != nil {
		return nil, err
	}
	fs.orphan.waiters.Total, fs.orphan.waiters.Each = 32, 16
	fs.pageSize.Times = 100
	fs.freeIdle = func(block, n uint64) {
		// A transaction whose media failed may have been committed all the same:
		// from then on nothing that it changed is used again.
		if fs.failed.Load() != nil {
			return
		}
		for n > 0 {
			m, bad := fs.bad.alike(block, n)
			if bad {
				fs.bad.retired.Add(m)
			} else {
				fs.alloc.Free(block, m)
			}
			block, n = block+m, n-m
		}
	}
	for i := range fs.frees {
		fs.frees[i] = func(block, n uint64) {
			switch {
			case fs.failed.Load() != nil:
			case fs.bad.has(block, n):
				fs.freeIdle(block, n)
			default:
				fs.alloc.FreeTo(uint32(i), block, n)
			}
		}
	}
	if err := fs.mount(); err != nil {
		fs.endHeartbeat()
		fs.table.Close()
		return nil, fs.mountError(err)
	}
	return fs, nil
}

// newSpace makes everything free, as far as DRAM knows.
func (fs *FS) newSpace() (err error) {
	fs.meta = metaSpace{inodes: make(map[uint64]*inodeBlock)}
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
	if err := fs.loadBad(); err != nil {
		return err
	}
	if err := fs.claimOwner(); err != nil {
		return err
	}
	var seq uint64
	var err error
	if fs.opt.ReadOnly {
		recs, err := fs.readRecords()
		if err != nil {
			return err
		}
		if len(recs) > 0 {
			return fmt.Errorf("the journal holds %d records that must be replayed first: mount once without -o ro", len(recs))
		}
	} else if fs.recovered, seq, err = fs.recoverJournal(); err != nil {
		return err
	}
	scan := newScan(fs)
	if fs.saved.Map.Block != 0 && fs.recovered == 0 && !fs.opt.Scan {
		err := scan.loadFreeMap()
		if fs.mapped = err == nil; !fs.mapped {
			fs.warn("the saved free map is not used, all inodes are read: %v", err)
			old := fs.table
			if err := fs.newSpace(); err != nil {
				return err
			}
			old.Close()
			fs.compact.inos = nil
			scan = newScan(fs)
		}
	}
	if fs.mapped {
		fs.table.Doubt(fs.doubt)
	} else if err := scan.run(); err != nil {
		return err
	}
	seq = max(seq, scan.seq.Load(), fs.ownerSeq)
	for _, l := range fs.lanes {
		l.seq.Store(seq)
	}
	fs.retireBad()
	if err := fs.saveBad(); err != nil {
		return err
	}
	fs.keepChunks()
	if !fs.opt.ReadOnly {
		if err := fs.finishScan(scan); err != nil {
			return err
		}
	}
	if fs.atomic() {
		if err := fs.openStages(); err != nil {
			return err
		}
	}
	root, e := fs.get(layout.RootIno) // stays cached while mounted
	if e != 0 || !root.isDir() {
		return corruptf("the root directory at offset %d cannot be read", fs.sb.InodeBase)
	}
	if fs.opt.BeatInterval > 0 { // whoever claimed it at the same moment has done so by now
		if err := fs.Beat(); errors.Is(err, owner.ErrLost) {
			return err
		}
	}
	fs.startBackground()
	return nil
}

// claimOwner refuses a region that somebody else uses, and makes it ours.
func (fs *FS) claimOwner() error {
	v := fs.opt.Owner
	if v == nil {
		var err error
		if v, err = owner.Judge(fs.r, fs.sb, owner.Options{Progress: fs.opt.Progress, Sleep: fs.opt.Sleep}); err != nil {
			return err
		}
	}
	if err := v.Refusal(fs.opt.Takeover, "-o takeover"); err != nil {
		return err
	}
	rec := &v.Record
	fs.ownerSeq = rec.Seq
	if rec.Valid && rec.Owner.State == layout.OwnerSaved {
		fs.saved = rec.Owner
	}
	if fs.wasDamaged = rec.Valid && rec.Owner.Damaged; fs.wasDamaged {
		fs.warn("damaged metadata was found when the filesystem was mounted before; unmount it and run daxfsd fsck")
	}
	if fs.opt.ReadOnly {
		return nil
	}
	fs.ownerSeq++
	c, err := owner.Take(fs.r, fs.sb, v, owner.TakeOptions{Seq: fs.ownerSeq, Interval: fs.opt.BeatInterval, Clock: fs.opt.Clock})
	if err != nil {
		return err
	}
	fs.claim = c
	c.Start(func(err error) {
		if errors.Is(err, owner.ErrLost) {
			fs.lose(err)
		} else {
			fs.warn("the heartbeat of this mount cannot be written, so others may take it for dead: %v", err)
		}
	})
	return nil
}

// lose makes the filesystem refuse everything after another process has taken the region: what it
// knows of the blocks may be wrong by now.
func (fs *FS) lose(err error) {
	e := fmt.Errorf("this mount reads and changes nothing any more, unmount it: %w", err)
	fs.failed.CompareAndSwap(nil, &e)
	if fs.lost.CompareAndSwap(nil, &e) {
		fs.warn("%v", e)
	}
}

// whyFailed says why changes are refused, or everything is; "" if the filesystem works.
func (fs *FS) whyFailed() string {
	err := fs.lost.Load()
	if err == nil {
		err = fs.failed.Load()
	}
	if err == nil {
		return ""
	}
	return (*err).Error()
}

// Beat shows that the filesystem is in use, and finds out whether it still is ours: what
// Options.BeatInterval has done from time to time.
func (fs *FS) Beat() error {
	if fs.claim == nil {
		return nil
	}
	err := fs.claim.Beat()
	if errors.Is(err, owner.ErrLost) {
		fs.lose(err)
	}
	return err
}

// ReadOwner reads the owner record; ok is false if it is torn.
func ReadOwner(r *pmem.Region, sb *layout.Superblock) (o layout.Owner, ok bool, err error) {
	rec, err := owner.Read(r, sb)
	return rec.Owner, rec.Valid, err
}

// scan rebuilds free space from what live inodes claim, with a worker per CPU.
type scan struct {
	fs  *FS
	seq atomic.Uint64

	mu      sync.Mutex
	todo    []uint64 // inode blocks
	done    int
	err     error
	orphans []uint64 // inodes with nlink 0
	trunc   []uint64 // inodes with an interrupted truncation
	shared  []claimed
}

// claimed is a run of blocks and who claims it.
type claimed struct{ ino, block, n uint64 }

func newScan(fs *FS) *scan { return &scan{fs: fs} }

func (s *scan) run() error {
	if err := s.structures(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() { defer wg.Done(); s.worker() }()
	}
	wg.Wait()
	if s.err != nil {
		return s.err
	}
	return s.claimShared()
}

// structures reserves what is neither data nor free, and lists the inode blocks.
func (s *scan) structures() error {
	fs := s.fs
	static := uint64(fs.sb.StaticEnd) >> layout.BlockShift
	fs.alloc.Reserve(0, static)
	fs.alloc.Reserve(uint64(fs.sb.BackupOff)>>layout.BlockShift, 1)
	fs.fixed = static + 1
	return s.chunks()
}

// claimShared claims what extents may share, once for all who have it.
func (s *scan) claimShared() error {
	slices.SortFunc(s.shared, func(a, b claimed) int {
		return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(b.n, a.n))
	})
	end := uint64(0) // what is before it was claimed by one of them
	for _, c := range s.shared {
		if c.block < end {
			n := min(c.n, end-c.block)
			if err := s.fs.table.Share(c.block, n); err != nil {
				return err
			}
			c.block, c.n = c.block+n, c.n-n
		}
		if c.n > 0 {
			if err := s.claim(c.ino, c.block, c.n); err != nil {
				return err
			}
			end = c.block + c.n
		}
	}
	return nil
}

// chunks reserves the metadata chunks and lists their inode blocks.
func (s *scan) chunks() error {
	fs := s.fs
	var l layout.Line
	for c := int64(0); c < fs.sb.Chunks(); c++ {
		line, bit := layout.ChunkMapPos(c)
		if bit == 0 {
			if err := fs.loadLine(fs.sb.ChunkMapOff+line*layout.LineSize, &l); err != nil {
				return err
			}
		}
		if !l.ChunkBit(bit) {
			continue
		}
		if err := s.chunk(c); err != nil {
			return err
		}
	}
	if _, c := fs.meta.find(fs.sb.FirstChunk()); c == nil {
		return corruptf("the chunk map lacks the first metadata chunk %d", fs.sb.FirstChunk())
	}
	return nil
}

func (s *scan) chunk(c int64) error {
	fs := s.fs
	off := fs.sb.ChunkHeader(c)
	var l layout.Line
	if err := fs.loadLine(off, &l); err != nil {
		return err
	}
	if !l.IsChunkHeader(c) || c < fs.sb.FirstChunk() {
		return corruptf("the header of metadata chunk %d at offset %d is not one", c, off)
	}
	mc := fs.newMetaChunk(c)
	start := uint64(c) << fs.chunkShift()
	if !fs.alloc.Reserve(start+uint64(mc.first-1), uint64(mc.end-mc.first+1)) {
		return corruptf("metadata chunk %d overlaps another structure", c)
	}
	fs.meta.add(mc)
	for i := mc.first; i < mc.end; i++ {
		tl, b := layout.TypePos(i)
		if b == 0 || i == mc.first {
			if err := fs.loadLine(off+int64(tl)*layout.LineSize, &l); err != nil {
				return err
			}
		}
		switch l.BlockType(b) {
		case layout.BlockOther:
		case layout.BlockInode:
			s.todo = append(s.todo, start+uint64(i))
			mc.take(i)
			fs.meta.nfree--
			fs.setInodeBlock(start+uint64(i), true)
		default:
			return corruptf("block %d has the unknown type %d", start+uint64(i), l.BlockType(b))
		}
	}
	return nil
}

func (s *scan) worker() {
	buf := make([]byte, layout.BlockSize)
	for {
		s.mu.Lock()
		i := s.done
		if s.err != nil || i == len(s.todo) {
			s.mu.Unlock()
			return
		}
		n := min(64, len(s.todo)-i)
		s.done += n
		s.mu.Unlock()
		s.fs.progress("reading inodes", int64(i), int64(len(s.todo)))
		for _, b := range s.todo[i : i+n] {
			if err := s.block(b, buf); err != nil {
				s.mu.Lock()
				s.err = errors.Join(s.err, err)
				s.mu.Unlock()
				return
			}
		}
	}
}

// block claims what the inodes of one block own.
func (s *scan) block(b uint64, buf []byte) error {
	fs := s.fs
	off := int64(b) << layout.BlockShift
	if err := fs.r.Load(off, buf); err != nil {
		return err
	}
	free, used := uint16(0), 0
	top := uint64(0)
	for i := 0; i < layout.InodesPerBlock; i++ {
		io := off + int64(i)*layout.InodeSize
		at := func(o int64) *layout.Line { return (*layout.Line)(buf[io-off+o:]) }
		core := at(layout.InodeCoreOff)
		if !core.Valid(fs.seed, io) {
			return corruptf("inode %d at offset %d has a wrong checksum", fs.sb.InodeAt(io), io)
		}
		top = max(top, core.Seq())
		var c layout.Core
		if c.Get(core); c.Mode == 0 {
			free |= 1 << i
			continue
		}
		used++
		times := at(layout.InodeTimesOff)
		if !times.Valid(fs.seed, io+layout.InodeTimesOff) {
			return corruptf("inode %d at offset %d has a wrong checksum", fs.sb.InodeAt(io), io+layout.InodeTimesOff)
		}
		if err := checkCore(fs.sb.InodeAt(io), &c); err != nil {
			return err
		}
		top = max(top, times.Seq())
		var t layout.Times
		t.Get(times)
		if err := s.inode(fs.sb.InodeAt(io), io, &c, &t); err != nil {
			return err
		}
	}
	for {
		m := s.seq.Load()
		if top <= m || s.seq.CompareAndSwap(m, top) {
			break
		}
	}
	fs.meta.mu.Lock()
	defer fs.meta.mu.Unlock()
	fs.meta.used += uint64(used)
	if free != 0 {
		s.freeSlots(b, free)
	}
	return nil
}

// freeSlots notes the free slots of an inode block.
func (s *scan) freeSlots(b uint64, mask uint16) {
	if s.fs.bad.has(b, 1) {
		return // who took one could not use it
	}
	m := &s.fs.meta
	m.inodes[b] = &inodeBlock{free: mask}
	m.stack = append(m.stack, b)
	m.slots += uint64(bits.OnesCount16(mask))
}

func (s *scan) inode(ino uint64, off int64, c *layout.Core, t *layout.Times) error {
	fs := s.fs
	if c.Nlink == 0 || c.Format&layout.FormatTruncating != 0 {
		s.mu.Lock()
		if c.Nlink == 0 {
			s.orphans = append(s.orphans, ino)
		} else {
			s.trunc = append(s.trunc, ino)
		}
		s.mu.Unlock()
	}
	if t.XattrRoot != 0 {
		if err := s.xattrs(ino, c.Gen, t.XattrRoot); err != nil {
			return err
		}
	}
	if c.Format&layout.FormatInline != 0 {
		return nil
	}
	if int64(c.Size) >= 1<<fs.sb.PUDShift {
		fs.compact.add(ino) // which finds out whether there is something to do
	}
	dir := c.Mode&syscall.S_IFMT == syscall.S_IFDIR
	var chain []uint64
	var list []layout.Extent
	err := fs.walkExtents(ino, off, t.ExtentRoot, c.Gen, &chain, func(slot uint32, e layout.Extent) error {
		if !dir {
			e.Flags &= layout.ExtentShared
			list = append(list, e)
			return nil
		}
		for b := e.Block; b < e.Block+uint64(e.Len); b++ {
			if !fs.claimMeta(b) {
				return corruptf("directory %d claims block %d, which is not a free metadata block", ino, b)
			}
		}
		return nil
	})
	if err == nil {
		err = s.extents(ino, list)
	}
	if err != nil {
		return err
	}
	for _, b := range chain {
		if !fs.claimMeta(b) {
			return corruptf("inode %d claims extent block %d, which is not a free metadata block", ino, b)
		}
	}
	return nil
}

// extents claims the data blocks of one file. What lies together there and in the region is
// claimed as one run, so that a large folio of which a part is unwritten stays one.
func (s *scan) extents(ino uint64, list []layout.Extent) error {
	slices.SortFunc(list, func(a, b layout.Extent) int { return cmp.Compare(a.Logical, b.Logical) })
	for i := 0; i < len(list); {
		e := list[i]
		n := uint64(e.Len)
		for i++; i < len(list) && list[i].Logical == e.Logical+n && list[i].Block == e.Block+n && list[i].Flags == e.Flags; i++ {
			n += uint64(list[i].Len)
		}
		if e.Flags&layout.ExtentShared != 0 {
			s.mu.Lock()
			s.shared = append(s.shared, claimed{ino, e.Block, n})
			s.mu.Unlock()
		} else if err := s.claim(ino, e.Block, n); err != nil {
			return err
		}
	}
	return nil
}

// claim makes data blocks the inode's.
func (s *scan) claim(ino, block, n uint64) error {
	if !s.fs.alloc.Reserve(block, n) {
		return corruptf("inode %d claims blocks %d..%d, of which one belongs to somebody else", ino, block, block+n-1)
	}
	s.fs.table.Own(block, n)
	return nil
}

// xattrs claims what the attributes of an inode take.
func (s *scan) xattrs(ino uint64, gen uint32, root uint64) error {
	xs, err := s.fs.walkXattrs(ino, gen, root)
	if err != nil {
		return err
	}
	for _, b := range xs.chain {
		if !s.fs.claimMeta(b) {
			return corruptf("inode %d claims attribute block %d, which is not a free metadata block", ino, b)
		}
	}
	for _, x := range xs.list {
		for _, r := range x.Runs {
			if err := s.claim(ino, r.Block, uint64(r.Len)); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishScan frees the orphans, finishes the truncations and gives back the metadata blocks
// that a crash left.
func (fs *FS) finishScan(s *scan) error {
	var ctx Context
	for _, ino := range s.orphans {
		in := &inode{ino: ino, off: fs.sb.InodeOff(ino)}
		var l layout.Line
		if err := fs.loadLine(in.off, &l); err != nil {
			return err
		}
		in.core.Get(&l)
		in.typ = uint32(in.core.Mode) & syscall.S_IFMT
		if err := fs.loadLine(in.off+layout.InodeTimesOff, &l); err != nil {
			return err
		}
		var t layout.Times
		t.Get(&l)
		in.troot, in.xroot = t.ExtentRoot, t.XattrRoot
		fs.reclaim(&ctx, in)
		fs.orphans++
	}
	for _, ino := range s.trunc {
		in, e := fs.get(ino)
		if e != 0 {
			return corruptf("inode %d has an interrupted truncation and cannot be read", ino)
		}
		in.io.Lock()
		err := fs.loadExtents(in)
		if err == nil {
			err = fs.finishTruncate(&ctx, in)
		}
		in.io.Unlock()
		fs.put(in, 1)
		if err != nil {
			return err
		}
	}
	fs.tidy(&ctx)
	return nil
}

// Unmount makes the filesystem clean. No call may be in flight; the kernel's
// references end here, so orphans are freed. The region stays open.
//
// Persistence order:
//  1. lazy times and freed orphans, each on its own
//  2. all lanes retired: every line is in place
//  3. the free map, in free blocks; SFENCE (saveFreeMap)
//  4. owner record: clean, and where the free map is; SFENCE (owner.Claim.Release)
func (fs *FS) Unmount() error {
	fs.endBackground()
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
	fs.background.Wait() // large orphans
	defer fs.table.Close()
	defer fs.endHeartbeat() // not before the owner record says clean
	if fs.opt.ReadOnly {
		return nil
	}
	if err := fs.failure(); err != nil {
		return err
	}
	if err := fs.retireLanes(); err != nil {
		return err
	}
	fs.closeStages()
	ref := fs.saveFreeMap()
	if err := fs.r.Sync(0, fs.sb.Size); err != nil {
		return err
	}
	return fs.claim.Release(max(fs.ownerSeq, fs.seqNow())+1, fs.wasDamaged || fs.damage.found.Load(), ref)
}

// endHeartbeat ends it as the daemon's death does.
func (fs *FS) endHeartbeat() {
	if fs.claim != nil {
		fs.claim.Stop()
	}
}

// Abandon ends the filesystem as the daemon's death would: nothing more is stored, the next
// mount recovers. No call may be in flight. The region stays open.
func (fs *FS) Abandon() {
	fs.endBackground()
	fs.endHeartbeat()
	fs.table.Close()
}

// startBackground starts what is done from time to time: making lazily kept times durable; writing a region in an ordinary
// file back, so that what a crash of the host leaves of it is not much older than the
// interval; and compaction.
func (fs *FS) startBackground() {
	fs.stop = make(chan struct{})
	if fs.opt.ReadOnly {
		return
	}
	fs.every(time.Second, func() { fs.now() }) // for coarse
	fs.every(fs.opt.TimesInterval, fs.flushAllTimes)
	if fs.needsSync() {
		fs.every(fs.opt.SyncInterval, func() {
			if err := fs.r.Sync(0, fs.sb.Size); err != nil {
				fs.warn("writing the region back: %v", err)
			}
		})
	}
	fs.every(fs.opt.CompactInterval, func() { fs.Compact(&Context{Cancel: fs.stop}) })
}

// every calls f once in that time until the end, which waits for it; never if it is 0. It
// lets 20 times as long pass as a call has taken, at least.
func (fs *FS) every(d time.Duration, f func()) {
	if d <= 0 {
		return
	}
	fs.background.Add(1)
	go func() {
		defer fs.background.Done()
		t := time.NewTimer(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				start := time.Now()
				f()
				t.Reset(max(d, 20*time.Since(start)))
			case <-fs.stop:
				return
			}
		}
	}()
}

func (fs *FS) endBackground() {
	close(fs.stop)
	fs.background.Wait()
}
