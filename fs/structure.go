package fs

import (
	"errors"
	"fmt"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// structureAt names the structure at a byte offset of the region.
func (fs *FS) structureAt(off int64) string {
	sb := fs.sb
	switch {
	case off >= sb.BackupOff && off < sb.BackupOff+layout.BlockSize:
		return "the second superblock"
	case off >= sb.OwnerOff && off < sb.OwnerOff+layout.LineSize:
		return "the owner record"
	case off >= sb.MappedOff() && off < sb.MappedOff()+layout.LineSize:
		return "the record of mappings"
	case off >= sb.BeatOff() && off < sb.BeatOff()+layout.LineSize:
		return "the heartbeat"
	case off >= sb.BadOff && off < sb.BadOff+layout.BlockSize:
		return "the bad-range list"
	case off >= sb.LaneOff && off < sb.LaneOff+2*int64(sb.Lanes)*int64(sb.LaneSlot):
		return fmt.Sprintf("lane %d of the journal", (off-sb.LaneOff)/(2*int64(sb.LaneSlot)))
	case off >= sb.ChunkMapOff && off < sb.ChunkMapOff+sb.ChunkMapLines*layout.LineSize:
		return "the chunk map"
	case off >= sb.SlotOff && off < sb.SlotOff+sb.Slots*layout.LineSize:
		return "the slots of mapped files"
	case off < sb.StaticEnd:
		return "the fixed area"
	}
	no := off >> sb.ChunkShift
	meta := fs.meta.IsChunk(no)
	switch {
	case off >= sb.ChunkHeader(no) && off < sb.ChunkHeader(no)+layout.BlockSize && (meta || no >= sb.FirstChunk()):
		return fmt.Sprintf("the header of metadata chunk %d", no)
	case fs.meta.HasInodes(off):
		return fmt.Sprintf("the block of inodes %d to %d", sb.InodeAt(off&^(layout.BlockSize-1)), sb.InodeAt(off|(layout.BlockSize-1)&^(layout.InodeSize-1)))
	case meta:
		return "metadata of a file or directory"
	}
	return "data"
}

// mountError adds to a media error the structure that could not be read.
func (fs *FS) mountError(err error) error {
	var m pmem.MediaError
	if !errors.As(err, &m) {
		return err
	}
	return fmt.Errorf("%s cannot be read: %w; daxfsd fsck says what else is damaged", fs.structureAt(m.Off), err)
}
