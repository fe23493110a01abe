package layout

import (
	"errors"
	"strings"
	"testing"
)

// TestGeometry checks that a superblock with a matching checksum is refused if its geometry does
// not follow from its version and size, and that the error names what was found and expected.
func TestGeometry(t *testing.T) {
	make := func(size int64, chunk, pud uint8, lanes uint16) Superblock {
		super := Superblock{Version: Version, Size: size, ChunkShift: chunk, PUDShift: pud, Lanes: lanes, Granule: BlockSize}
		super.Place()
		return super
	}
	for _, super := range []Superblock{
		make(MinSize, ChunkShift, PUDShift, 8), make(MinSize, 15, 18, 2), make(MaxSize, ChunkShift, PUDShift, MaxLanes),
		make(4<<30, 15, 30, 1), make(1<<40+BlockSize, ChunkShift, PUDShift, 64),
	} {
		if _, err := DecodeSuper(super.Encode(), 0); err != nil {
			t.Errorf("%+v: %v", super, err)
		}
	}
	for name, test := range map[string]struct {
		super  Superblock
		change func(*Superblock)
	}{
		"slot":            {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.LaneSlot = 1 << 20 }},
		"lanes":           {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.Lanes = 65535; super.Place() }},
		"no lanes":        {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.Lanes = 0; super.Place() }},
		"owner":           {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.OwnerOff += LineSize }},
		"bad-range":       {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.BadOff += BlockSize }},
		"offset of the l": {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.LaneOff += LineSize }},
		"chunk map":       {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.ChunkMapOff -= LineSize }},
		"in lines":        {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.ChunkMapLines++ }},
		"fixed area":      {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.StaticEnd += BlockSize }},
		"first inode":     {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.InodeBase += BlockSize }},
		"second superb":   {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.BackupOff -= BlockSize }},
		"granule":         {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.Granule = 3 * BlockSize }},
		"chunk shift 15":  {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.Size, super.ChunkShift = MaxSize, 15; super.Place() }},
		"chunk shift 23":  {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.ChunkShift = 23; super.Place() }},
		"pud shift 40":    {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.PUDShift = 40 }},
		"32 TiB":          {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.Size = 60 << 40; super.Place() }},
		"16 MiB":          {make(1<<30, ChunkShift, PUDShift, 64), func(super *Superblock) { super.Size = 8 << 20; super.Place() }},
		"root only":       {make(MinSize, 15, 18, 8), func(super *Superblock) { super.RootBlocks = 1 << 40 }},
	} {
		test.change(&test.super)
		_, err := DecodeSuper(test.super.Encode(), 0)
		if !errors.Is(err, ErrChecksum) {
			t.Errorf("%s: %v, expected ErrChecksum", name, err)
		} else if !strings.Contains(err.Error(), strings.TrimPrefix(name, "no ")) {
			t.Errorf("%s: the error does not name it: %v", name, err)
		}
	}
}
