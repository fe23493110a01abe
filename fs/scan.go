package fs

import (
	"cmp"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// scan rebuilds the free space from the blocks that live inodes claim, with a worker per CPU.
type scan struct {
	fs  *FS
	seq atomic.Uint64 // the highest sequence of an inode's lines

	mu      sync.Mutex // protects the fields below while workers run
	todo    []uint64   // inode blocks
	done    int        // how many of todo a worker has taken
	err     error
	orphans []uint64  // inodes with nlink 0
	trunc   []uint64  // inodes with an interrupted truncation
	shared  []claimed // runs that other inodes may have, too
}

// claimed is a run of n blocks, and the inode that claims it.
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

// structures reserves the blocks that are neither data nor free, and lists the inode blocks.
func (s *scan) structures() error {
	fs := s.fs
	static := uint64(fs.sb.StaticEnd) >> layout.BlockShift
	fs.alloc.Reserve(0, static)
	tail := uint64(fs.sb.DataEnd()) >> layout.BlockShift
	fs.alloc.Reserve(tail, fs.sb.Blocks()-tail)
	fs.mounted.fixed = static + fs.sb.Blocks() - tail
	inodeBlocks, err := fs.meta.Load(fs.alloc.Reserve)
	s.todo = inodeBlocks
	return err
}

// claimShared claims the blocks that inodes may share: the first inode to claim a block gets it,
// and each further one shares it.
func (s *scan) claimShared() error {
	slices.SortFunc(s.shared, func(a, b claimed) int {
		return cmp.Or(cmp.Compare(a.block, b.block), cmp.Compare(b.n, a.n))
	})
	end := uint64(0) // blocks before end are claimed already
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

// block claims the blocks that the inodes in one inode block own. buf has room for one block.
func (s *scan) block(block uint64, buf []byte) error {
	fs := s.fs
	off := int64(block) << layout.BlockShift
	if err := fs.r.Load(off, buf); err != nil {
		return err
	}
	free, used := uint16(0), 0
	top := uint64(0)
	for i := 0; i < layout.InodesPerBlock; i++ {
		inodeOff := off + int64(i)*layout.InodeSize
		line := func(rel int64) *layout.Line { return (*layout.Line)(buf[inodeOff-off+rel:]) }
		coreLine := line(layout.InodeCoreOff)
		if !coreLine.Valid(fs.journal.Seed(), inodeOff) {
			return corruptf("inode %d at offset %d has a wrong checksum", fs.sb.InodeAt(inodeOff), inodeOff)
		}
		top = max(top, coreLine.Seq())
		var core layout.Core
		if core.Get(coreLine); core.Mode == 0 {
			free |= 1 << i
			continue
		}
		used++
		timesLine := line(layout.InodeTimesOff)
		if !timesLine.Valid(fs.journal.Seed(), inodeOff+layout.InodeTimesOff) {
			return corruptf("inode %d at offset %d has a wrong checksum", fs.sb.InodeAt(inodeOff), inodeOff+layout.InodeTimesOff)
		}
		if err := checkCore(fs.sb.InodeAt(inodeOff), &core); err != nil {
			return err
		}
		top = max(top, timesLine.Seq())
		var times layout.Times
		times.Get(timesLine)
		if err := s.inode(fs.sb.InodeAt(inodeOff), inodeOff, &core, &times); err != nil {
			return err
		}
	}
	for {
		highest := s.seq.Load()
		if top <= highest || s.seq.CompareAndSwap(highest, top) {
			break
		}
	}
	fs.meta.AddInodeBlock(block, free, used)
	return nil
}

func (s *scan) inode(ino uint64, off int64, core *layout.Core, times *layout.Times) error {
	fs := s.fs
	if core.Nlink == 0 || core.Format&layout.FormatTruncating != 0 {
		s.mu.Lock()
		if core.Nlink == 0 {
			s.orphans = append(s.orphans, ino)
		} else {
			s.trunc = append(s.trunc, ino)
		}
		s.mu.Unlock()
	}
	if times.XattrRoot != 0 {
		if err := s.xattrs(ino, core.Gen, times.XattrRoot); err != nil {
			return err
		}
	}
	if core.Format&layout.FormatInline != 0 {
		return nil
	}
	if int64(core.Size) >= 1<<fs.sb.PUDShift {
		fs.defrag.add(ino) // defrag finds out whether there is something to do
	}
	dir := core.Mode&syscall.S_IFMT == syscall.S_IFDIR
	var chain []uint64
	var list []layout.Extent
	err := fs.walkExtents(ino, off, times.ExtentRoot, core.Gen, &chain, func(slot uint32, extent layout.Extent) error {
		if !dir {
			extent.Flags &= layout.ExtentShared
			list = append(list, extent)
			return nil
		}
		for block := extent.Block; block < extent.Block+uint64(extent.Len); block++ {
			if !fs.meta.Claim(block) {
				return corruptf("directory %d claims block %d, which is not a free metadata block", ino, block)
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
	for _, block := range chain {
		if !fs.meta.Claim(block) {
			return corruptf("inode %d claims extent block %d, which is not a free metadata block", ino, block)
		}
	}
	return nil
}

// extents claims the data blocks of one file. Extents that are contiguous in the file and in the
// region are claimed as one run, so that a large folio stays whole if a part of it is unwritten.
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

// claim makes n data blocks from block on the inode's. It returns an error if one of them is in
// use.
func (s *scan) claim(ino, block, n uint64) error {
	if !s.fs.alloc.Reserve(block, n) {
		return corruptf("inode %d claims blocks %d..%d, of which one is in use already", ino, block, block+n-1)
	}
	s.fs.table.Own(block, n)
	return nil
}

// xattrs claims the blocks of an inode's attributes, whose list begins with block root.
func (s *scan) xattrs(ino uint64, gen uint32, root uint64) error {
	xs, err := s.fs.walkXattrs(ino, gen, root)
	if err != nil {
		return err
	}
	for _, b := range xs.chain {
		if !s.fs.meta.Claim(b) {
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

// finish frees the orphans, finishes the truncations and gives back the metadata blocks that a
// crash left behind.
func (s *scan) finish() error {
	fs := s.fs
	var ctx Caller
	for _, ino := range s.orphans {
		in := &inode{ino: ino, off: fs.sb.InodeOff(ino)}
		var l layout.Line
		if err := fs.journal.ReadLine(in.off, &l); err != nil {
			return err
		}
		in.core.Get(&l)
		in.typ = uint32(in.core.Mode) & syscall.S_IFMT
		if err := fs.journal.ReadLine(in.off+layout.InodeTimesOff, &l); err != nil {
			return err
		}
		var t layout.Times
		t.Get(&l)
		in.troot, in.xroot = t.ExtentRoot, t.XattrRoot
		fs.reclaim(&ctx, in)
		fs.mounted.orphans++
	}
	for _, ino := range s.trunc {
		in, e := fs.get(ino)
		if e != 0 {
			return corruptf("inode %d has an interrupted truncation and cannot be read", ino)
		}
		in.io.Lock()
		err := fs.loadExtentsLocked(in)
		if err == nil {
			err = fs.finishTruncateLocked(&ctx, in)
		}
		in.io.Unlock()
		fs.put(in, 1)
		if err != nil {
			return err
		}
	}
	fs.meta.Tidy(ctx.Lane)
	return nil
}
