package fs

import (
	"github.com/daxfsd/daxfsd/fs/layout"
)

// Hint is an extent size hint, as xfs has it (FS_XFLAG_EXTSIZE): how large the pages are that
// should be able to map a file. From the first block on, the file's blocks are allocated where
// folios of that size can hold them. A directory gives its hint to new files and directories in it.
type Hint uint8

const (
	NoHint  Hint = iota
	HintPMD      // 2 MiB, unless the region has smaller orders
	HintPUD      // 1 GiB
)

// flag returns the inode flag of a hint.
func (h Hint) flag() uint32 {
	switch h {
	case HintPMD:
		return layout.FlagHintPMD
	case HintPUD:
		return layout.FlagHintPUD
	}
	return 0
}

// hintOf returns the hint in an inode's flags.
func hintOf(flags uint32) Hint {
	switch {
	case flags&layout.FlagHintPUD != 0:
		return HintPUD
	case flags&layout.FlagHintPMD != 0:
		return HintPMD
	}
	return NoHint
}

// HintSize returns the size of a hint in bytes; 0: no hint.
func (fs *FS) HintSize(h Hint) uint64 {
	if order := fs.hintOrder(h); order > 0 {
		return layout.BlockSize << order
	}
	return 0
}

// HintOf returns the hint of a size in bytes. ok is false if there is none.
func (fs *FS) HintOf(size uint64) (h Hint, ok bool) {
	for _, h := range [...]Hint{NoHint, HintPMD, HintPUD} {
		if size == fs.HintSize(h) {
			return h, true
		}
	}
	return NoHint, false
}

// hintOrder returns the order of a hint; 0: no hint.
func (fs *FS) hintOrder(h Hint) uint8 {
	switch o := fs.alloc.Orders(); h {
	case HintPMD:
		return o.PMD
	case HintPUD:
		return o.PUD
	}
	return 0
}

// wantedOrder returns the order of the folios that should hold the blocks which ctx allocates for a
// file; 0: as its growth suggests.
func (fs *FS) wantedOrder(ctx *Caller, in *inode) uint8 {
	if !in.isReg() {
		return 0
	}
	return max(ctx.Order, fs.hintOrder(hintOf(in.flags.Load())))
}
