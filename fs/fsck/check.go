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

// ErrTruncated: the region is shorter than the filesystem on it.
var ErrTruncated = errors.New("region is truncated")

// maxPasses bounds a repair. Each pass mends what it sees, and a few are enough, unless
// directories below each other are damaged; the bound is against a repair that undoes another.
const maxPasses = 100

// checker carries a whole check or repair.
type checker struct {
	media
	o       Options
	rep     *Report
	clean   bool
	refused error // why nothing is mended (any more); nil: all that can be is
}

// Check examines the filesystem on r, and with o.Repair mends it. Without, it makes a dry run of
// the same repair, and reports the same problems in the same order: nothing is written. An error
// means that it could not be examined at all: no superblock verifies (layout.ErrMagic, ErrVersion,
// ErrChecksum), the region is truncated, or the journal cannot be read.
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
	if un := c.sb.ROCompat &^ layout.KnownROCompat; un != 0 {
		if err := c.refuse(fmt.Errorf("the filesystem has features %#x that this program can only read: repair it with a newer daxfsd", un)); err != nil {
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
			c.refused = fmt.Errorf("%d passes have each mended something", i) // this one says what is left
		}
		p = c.newPass()
		p.first = i == 0
		p.run()
		if p.fixes == 0 {
			break
		}
	}
	for _, pr := range p.found {
		c.tell(pr)
	}
	c.rep.Left += p.left - len(p.found)                                  // which are only counted
	if c.saved != nil && p.left == p.rep.LostRanges && !p.incomplete() { // else there is nothing to compare with
		if bad := p.freeMap(); bad != "" {
			c.early(Problem{Code: FreeMap, Offset: int64(c.saved.Map.Block) << layout.BlockShift, What: "the saved free map " + bad}, c.begin)
		}
	}
	if !p.incomplete() { // else who owns what is not known
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

// refuse says that nothing can be repaired: an error if it should be. A dry run goes on, and says
// so of each problem.
func (c *checker) refuse(why error) error {
	if c.o.Repair {
		return why
	}
	c.refused = why
	return nil
}

// tell lists a problem in the report, and says it.
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

// try runs a fix, unless nothing is mended.
func (c *checker) try(fix func() error) error {
	if c.refused != nil {
		return c.refused
	}
	return fix()
}

// mend mends a problem with fix (nil: it cannot be), and notes in it what came of that.
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

// early reports a problem found outside the passes, mending it with fix (nil: cannot).
func (c *checker) early(pr Problem, fix func() error) {
	c.mend(&pr, fix)
	c.tell(pr)
}

func (c *checker) progress(stage string, done, total int64) {
	if c.o.Progress != nil {
		c.o.Progress(stage, done, total)
	}
}

// supers reads both superblocks and chooses the one to believe.
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
	first, fb, ferr := load(0)
	if errors.Is(ferr, layout.ErrVersion) {
		return ferr
	}
	if ferr == nil {
		if err := c.trust(first); err != nil {
			return err
		}
		second, sb, err := load(first.BackupOff)
		restore := func() error { return c.putSuper(first.BackupOff, fb) }
		switch {
		case err != nil:
			c.early(Problem{Code: SuperBackup, Offset: first.BackupOff, What: fmt.Sprintf("the second superblock is damaged: %v", err)}, restore)
		case !bytes.Equal(fb, sb):
			c.early(Problem{Code: SuperDiffer, Offset: first.BackupOff, What: fmt.Sprintf(
				"the superblocks differ: the first is of filesystem %x with %d bytes, the second of %x with %d bytes", first.UUID, first.Size, second.UUID, second.Size)}, restore)
		}
		return nil
	}
	// The backup stands in the last whole block of the filesystem, which is that of
	// the region unless mkfs was given a size: then it is looked for. One of an older
	// filesystem may come first: with that one nothing else there verifies.
	var doubtful *layout.Superblock
	last := c.r.Size()&^(layout.BlockSize-1) - layout.BlockSize
	for off := range c.magics(last) {
		second, sb, err := load(off)
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
			func() error { return c.putSuper(0, sb) })
		return nil
	}
	if doubtful == nil {
		return ferr
	}
	if err := c.refuse(fmt.Errorf("the only superblock stands at offset %d, and nothing else is of its filesystem, which may be an older one: nothing was repaired", doubtful.BackupOff)); err != nil {
		return err
	}
	c.rep.BackupUsed = true
	c.early(Problem{Code: SuperPrimary, What: fmt.Sprintf("the first superblock is damaged: %v; one at offset %d is used, perhaps of an older filesystem", ferr, doubtful.BackupOff)}, nil)
	return c.trust(doubtful)
}

// magics yields the offsets of the blocks behind the first that begin with a superblock's magic,
// from offset last downwards. Holes of the region's file are not looked at: a load would allocate
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

// confirmed reports whether the owner record, the bad-range list or the chunk map is of the
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

func (c *checker) trust(s *layout.Superblock) error {
	if s.Size > c.r.Size() {
		return fmt.Errorf("%w: it has %d bytes, the filesystem on it needs %d; restore the region's size and try again", ErrTruncated, c.r.Size(), s.Size)
	}
	c.sb, c.seed = s, layout.Seed(s.UUID)
	return nil
}

// putSuper restores a superblock from the other one.
//
// Persistence order: NT-store, SFENCE. Torn, it fails its checksum as it did before.
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

// judge refuses a region that somebody uses, and a repair of one of which that is unclear. Nothing
// is stored before it has agreed.
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

// owner reads the owner record. A torn one means: used by somebody who died.
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

// journal replays the committed records. Where some cannot be, a dry run looks at what the others
// leave.
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
				"the journal record at offset %d, sequence %d, has its data where no file's data can be", recs[i].at, recs[i].seq)}, nil)
		}
		for _, off := range c.lay(newer, &recs[i]) {
			bad++
			c.early(Problem{Code: JournalLine, Offset: recs[i].at, What: fmt.Sprintf(
				"the journal record at offset %d, sequence %d, changes the line at offset %d, which is no valid metadata line", recs[i].at, recs[i].seq, off)}, nil)
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
			"an interrupted write stays unfinished: of the %d bytes of a file at offset %d: %v", p.Len, p.Off, err)}, replayed)
	})
}
