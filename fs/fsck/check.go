package fsck

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// ErrTruncated means that the region is shorter than the filesystem on it.
var ErrTruncated = errors.New("region is truncated")

// maxPasses limits the passes of a repair. Each pass repairs what it sees, and a few are enough
// unless nested directories are damaged. The limit ends repairs that undo each other.
const maxPasses = 100

// checker is the state of a whole check or repair.
type checker struct {
	media
	o       Options
	rep     *Report
	clean   bool
	refused error // why nothing is repaired (any more); nil: all that can be is repaired
}

// Check examines the filesystem on r, and repairs it if o.Repair is set. Otherwise it makes a dry
// run of the same repair, which reports the same problems in the same order and writes nothing. An
// error means that the filesystem could not be examined: no superblock verifies (layout.ErrMagic,
// ErrVersion, ErrChecksum), the region is truncated, it is in use, or the journal cannot be read.
func Check(r *pmem.Region, o Options) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	c := &checker{media: media{image: image{r: r, dry: !o.Repair}}, o: o, rep: &Report{Problems: []Problem{}}}
	if o.Repair {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	if err := c.supers(); err != nil {
		return nil, err
	}
	if unknown := c.sb.ROCompat &^ layout.KnownROCompat; unknown != 0 {
		if err := c.refuse(fmt.Errorf("the filesystem has features %#x that this program can only read: repair it with a newer daxfsd", unknown)); err != nil {
			return nil, err
		}
	}
	if err := c.judge(); err != nil {
		return nil, err
	}
	defer func() {
		if c.claim != nil {
			c.claim.Stop()
		}
	}()
	c.owner()
	if err := c.journal(); err != nil {
		return nil, err
	}
	var p *pass
	for i := 0; ; i++ {
		if i == maxPasses {
			c.refused = fmt.Errorf("%d passes of repairs were not enough", i) // this pass reports what is left
		}
		p = c.newPass()
		p.first = i == 0
		p.run()
		if p.fixes == 0 {
			break
		}
	}
	for _, problem := range p.found {
		c.tell(problem)
	}
	c.rep.Left += p.left - len(p.found)                                  // those that are only counted
	if c.saved != nil && p.left == p.rep.LostRanges && !p.incomplete() { // otherwise there is nothing to compare with
		if bad := p.freeMap(); bad != "" {
			c.early(Problem{Code: FreeMap, Offset: int64(c.saved.Map.Block) << layout.BlockShift, What: "the saved free map " + bad}, c.begin)
		}
	}
	if !p.incomplete() { // otherwise some owners are unknown
		if err := p.offlineFaults(); err != nil {
			return nil, err
		}
	}
	left := c.rep.Left - c.rep.Fixable
	if c.begun && c.clean || !c.clean && left == c.rep.LostRanges {
		c.damaged = left > c.rep.LostRanges
		return c.rep, c.end()
	}
	return c.rep, nil
}

// refuse records why nothing can be repaired. A repair gets it as an error; a dry run continues,
// and adds it to each problem.
func (c *checker) refuse(why error) error {
	if c.o.Repair {
		return why
	}
	c.refused = why
	return nil
}

// tell adds a problem to the report, and calls Options.Found with it.
func (c *checker) tell(pr Problem) {
	if pr.Fixed {
		c.rep.Repaired++
	} else {
		c.rep.Left++
	}
	if pr.Fixable {
		c.rep.Fixable++
	}
	if len(c.rep.Problems) < MaxProblems {
		c.rep.Problems = append(c.rep.Problems, pr)
	}
	if c.o.Found != nil {
		c.o.Found(pr)
	}
}

// try runs a fix unless repairs are refused.
func (c *checker) try(fix func() error) error {
	if c.refused != nil {
		return c.refused
	}
	return fix()
}

// mend repairs a problem with fix, unless fix is nil, records the result in pr, and reports whether
// it succeeded.
func (c *checker) mend(pr *Problem, fix func() error) bool {
	if fix == nil {
		return false
	}
	if err := c.try(fix); err != nil {
		pr.What += fmt.Sprintf("; it cannot be repaired: %v", err)
		return false
	}
	pr.Fixed, pr.Fixable = !c.dry, c.dry
	return true
}

// early reports a problem found outside the passes, and repairs it with fix unless fix is nil.
func (c *checker) early(pr Problem, fix func() error) {
	c.mend(&pr, fix)
	c.tell(pr)
}

func (c *checker) progress(stage string, done, total int64) {
	if c.o.Progress != nil {
		c.o.Progress(stage, done, total)
	}
}

// supers reads both superblocks and chooses the valid one.
func (c *checker) supers() error {
	load := func(off int64) (*layout.Superblock, []byte, error) {
		b := make([]byte, layout.SuperSize)
		if off < 0 || off > c.r.Size()-layout.BlockSize {
			return nil, b, fmt.Errorf("superblock at offset %d: %w: the region ends at %d", off, layout.ErrMagic, c.r.Size())
		}
		if err := c.load(off, b); err != nil {
			return nil, b, err
		}
		s, err := layout.DecodeSuper(b, off)
		return s, b, err
	}
	first, firstBytes, ferr := load(0)
	if errors.Is(ferr, layout.ErrVersion) {
		return ferr
	}
	if ferr == nil {
		if err := c.trust(first); err != nil {
			return err
		}
		second, secondBytes, err := load(first.BackupOff)
		restore := func() error { return c.putSuper(first.BackupOff, firstBytes) }
		switch {
		case err != nil:
			c.early(Problem{Code: SuperBackup, Offset: first.BackupOff, What: fmt.Sprintf("the second superblock is damaged: %v", err)}, restore)
		case !bytes.Equal(firstBytes, secondBytes):
			c.early(Problem{Code: SuperDiffer, Offset: first.BackupOff, What: fmt.Sprintf(
				"the superblocks differ: the first is of filesystem %x with %d bytes, the second of %x with %d bytes", first.UUID, first.Size, second.UUID, second.Size)}, restore)
		}
		return nil
	}
	// The second superblock is in the last whole block of the filesystem. That is the region's last
	// block unless mkfs was given a size, in which case it is searched for. The search may find one
	// of an older filesystem first: no other structure there verifies with it.
	var doubtful *layout.Superblock
	last := c.r.Size()&^(layout.BlockSize-1) - layout.BlockSize
	for off := range c.magics(last) {
		second, secondBytes, err := load(off)
		if err != nil || second.BackupOff != off {
			continue
		}
		if err := c.trust(second); err != nil {
			return err
		}
		if !c.confirmed() {
			if doubtful == nil {
				doubtful = second
			}
			continue
		}
		c.rep.BackupUsed = true
		c.early(Problem{Code: SuperPrimary, What: fmt.Sprintf("the first superblock is damaged: %v; the second is used", ferr)},
			func() error { return c.putSuper(0, secondBytes) })
		return nil
	}
	if doubtful == nil {
		return ferr
	}
	if err := c.refuse(fmt.Errorf("the only superblock is at offset %d, and no other structure belongs to its filesystem, which may be an older one: nothing was repaired", doubtful.BackupOff)); err != nil {
		return err
	}
	c.rep.BackupUsed = true
	c.early(Problem{Code: SuperPrimary, What: fmt.Sprintf("the first superblock is damaged: %v; one at offset %d is used, perhaps of an older filesystem", ferr, doubtful.BackupOff)}, nil)
	return c.trust(doubtful)
}

// magics yields the offsets of the blocks after the first that begin with a superblock's magic,
// from the offset last downwards. It skips holes of the region's file, since loads would allocate
// them.
func (c *checker) magics(last int64) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		type span struct{ lo, hi int64 }
		var data []span
		for lo, hi := c.r.NextData(0); lo < c.r.Size(); lo, hi = c.r.NextData(hi) {
			data = append(data, span{lo &^ (layout.BlockSize - 1), hi})
		}
		var magic [8]byte
		for _, d := range slices.Backward(data) {
			for off := min(last, (d.hi-1)&^(layout.BlockSize-1)); off > 0 && off >= d.lo; off -= layout.BlockSize {
				if off != last && off>>layout.BlockShift%4096 == 0 {
					c.progress("looking for the second superblock", last-off, last)
				}
				if c.r.Load(off, magic[:]) == nil && magic == layout.Magic && !yield(off) {
					return
				}
			}
		}
	}
}

// confirmed reports whether the owner record, the bad-range list or the chunk map belongs to the
// filesystem that the superblock describes.
func (c *checker) confirmed() bool {
	var l layout.Line
	if c.line(c.sb.OwnerOff, &l) == nil || c.line(c.sb.ChunkMapOff, &l) == nil {
		return true
	}
	for i := range int64(layout.LinesPerBlock) {
		if c.line(c.sb.BadOff+i*layout.LineSize, &l) == nil {
			return true
		}
	}
	return false
}

// trust makes s the superblock of the check. It fails if s describes a filesystem larger than the
// region.
func (c *checker) trust(s *layout.Superblock) error {
	if s.Size > c.r.Size() {
		return fmt.Errorf("%w: it has %d bytes, the filesystem on it needs %d; restore the region's size and try again", ErrTruncated, c.r.Size(), s.Size)
	}
	c.sb, c.seed = s, layout.Seed(s.UUID)
	return nil
}

// putSuper restores the superblock at off from the other one, b.
//
// Persistence order: NT-store, SFENCE. A torn superblock fails its checksum, as it did before.
func (c *checker) putSuper(off int64, b []byte) error {
	if err := c.judge(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.ntStore(off, b); err != nil {
		return err
	}
	c.fence()
	return nil
}

// judge rejects a region that is in use, and a repair of a region of which that is unclear. Nothing
// is stored before judge succeeds.
func (c *checker) judge() (err error) {
	if c.verdict == nil {
		c.verdict = c.o.Owner
	}
	if c.verdict == nil {
		if c.verdict, err = owner.Judge(c.r, c.sb, owner.Options{Progress: c.o.Progress, Sleep: c.o.Sleep}); err != nil {
			return err
		}
	}
	c.beat = c.o.BeatInterval
	return c.verdict.Refusal(c.o.Takeover || !c.o.Repair, "--takeover")
}

// owner reads the owner record. A torn record means that the region's user died while it used the
// region.
func (c *checker) owner() {
	var l layout.Line
	if c.line(c.sb.OwnerOff, &l) != nil {
		return
	}
	var o layout.Owner
	o.Get(&l)
	if o.State == layout.OwnerSaved {
		c.saved, c.rep.FreeMap = &o, true
	}
	c.clean = o.State == layout.OwnerClean || c.rep.FreeMap
	c.rep.Clean = c.clean
	if c.damaged = o.Damaged; c.damaged {
		c.early(Problem{Code: OwnerDamaged, Offset: c.sb.OwnerOff, What: "damaged metadata was found while the filesystem was mounted"}, c.begin)
	}
	if o.State > layout.OwnerSaved {
		c.early(Problem{Code: OwnerState, Offset: c.sb.OwnerOff, What: fmt.Sprintf("the owner record has state %d, expected %d to %d", o.State, layout.OwnerClean, layout.OwnerSaved)},
			c.begin)
	}
}

// journal replays the committed records. If some cannot be replayed, a repair fails, and a dry run
// checks what the others leave.
func (c *checker) journal() error {
	recs, err := c.readRecords()
	if err != nil {
		return fmt.Errorf("the journal cannot be read: %w", err)
	}
	c.rep.JournalRecords = len(recs)
	if len(recs) == 0 {
		return nil
	}
	bad := 0
	newer := map[int64]*layout.Line{}
	for i := range recs {
		if recs[i].bad {
			bad++
			c.early(Problem{Code: JournalData, Offset: recs[i].at, What: fmt.Sprintf(
				"the journal record at offset %d, sequence %d, has its data in blocks that cannot hold file data", recs[i].at, recs[i].seq)}, nil)
		}
		for _, off := range c.lay(newer, &recs[i]) {
			bad++
			c.early(Problem{Code: JournalLine, Offset: recs[i].at, What: fmt.Sprintf(
				"the journal record at offset %d, sequence %d, changes the line at offset %d, which cannot be a metadata line", recs[i].at, recs[i].seq, off)}, nil)
		}
	}
	if bad > 0 {
		if err := c.refuse(fmt.Errorf("the journal holds %d lines or records that cannot be replayed: nothing was repaired", bad)); err != nil {
			return err
		}
	}
	replayed := func() error { return nil }
	if c.clean {
		c.early(Problem{Code: JournalClean, Offset: recs[0].at, What: fmt.Sprintf(
			"the filesystem was unmounted cleanly and its journal holds %d committed records, expected none", len(recs))}, replayed)
	}
	return c.replay(recs, newer, func(p layout.Piece, err error) {
		c.early(Problem{Code: Media, Offset: p.Off, What: fmt.Sprintf(
			"an interrupted write of %d bytes of file data at offset %d cannot be completed: %v", p.Len, p.Off, err)}, replayed)
	})
}
