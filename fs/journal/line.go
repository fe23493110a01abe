package journal

import (
	"runtime"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// ReadLine reads and verifies the metadata line at region offset off. The caller keeps the line's
// block from becoming free, by a lock of the block's owner or a reference. Errors are reported to
// the hooks.
func (j *Journal) ReadLine(off int64, l *layout.Line) error {
	if err := j.r.LoadLine(off, (*[layout.LineSize]byte)(l)); err != nil {
		j.hooks.MediaFailed(err)
		return err
	}
	if !l.Valid(j.seed, off) {
		return j.hooks.Damaged(layout.Damagedf("metadata line at offset %d has a wrong checksum", off))
	}
	return nil
}

// FormatBlock fills the block at region offset off with 64 valid empty lines, lets fill change them
// (nil: no change), and makes them durable. fill seals the lines that it changes with seq. Nothing
// may refer to the block.
//
// Persistence order: NT-store the block, SFENCE.
func (j *Journal) FormatBlock(off int64, fill func(b []byte, seq uint64)) error {
	b := j.blockBufs.Get().(*[layout.BlockSize]byte)
	defer j.blockBufs.Put(b)
	seq := j.Seq()
	layout.FormatBlock(b[:], j.seed, off, seq)
	if fill != nil {
		fill(b[:], seq)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := j.r.NTStore(off, b[:]); err != nil {
		j.hooks.FreshFailed(uint64(off)>>layout.BlockShift, 1, err)
		return err
	}
	j.r.Fence()
	return nil
}
