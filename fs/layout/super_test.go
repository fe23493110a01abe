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
		s := Superblock{Version: Version, Size: size, ChunkShift: chunk, PUDShift: pud, Lanes: lanes, Granule: BlockSize}
		s.Place()
		return s
	}
	for _, s := range []Superblock{
		make(MinSize, ChunkShift, PUDShift, 8), make(MinSize, 15, 18, 2), make(MaxSize, ChunkShift, PUDShift, MaxLanes),
		make(4<<30, 15, 30, 1), make(1<<40+BlockSize, ChunkShift, PUDShift, 64),
	} {
		if _, err := DecodeSuper(s.Encode(), 0); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for name, c := range map[string]struct {
		s      Superblock
		change func(*Superblock)
	}{
		"slot":            {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.LaneSlot = 1 << 20 }},
		"lanes":           {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.Lanes = 65535; s.Place() }},
		"no lanes":        {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.Lanes = 0; s.Place() }},
		"owner":           {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.OwnerOff += LineSize }},
		"bad-range":       {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.BadOff += BlockSize }},
		"offset of the l": {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.LaneOff += LineSize }},
		"chunk map":       {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.ChunkMapOff -= LineSize }},
		"in lines":        {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.ChunkMapLines++ }},
		"fixed area":      {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.StaticEnd += BlockSize }},
		"first inode":     {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.InodeBase += BlockSize }},
		"second superb":   {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.BackupOff -= BlockSize }},
		"granule":         {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.Granule = 3 * BlockSize }},
		"chunk shift 15":  {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.Size, s.ChunkShift = MaxSize, 15; s.Place() }},
		"chunk shift 23":  {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.ChunkShift = 23; s.Place() }},
		"pud shift 40":    {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.PUDShift = 40 }},
		"32 TiB":          {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.Size = 60 << 40; s.Place() }},
		"16 MiB":          {make(1<<30, ChunkShift, PUDShift, 64), func(s *Superblock) { s.Size = 8 << 20; s.Place() }},
		"root only":       {make(MinSize, 15, 18, 8), func(s *Superblock) { s.RootBlocks = 1 << 40 }},
	} {
		c.change(&c.s)
		_, err := DecodeSuper(c.s.Encode(), 0)
		if !errors.Is(err, ErrChecksum) {
			t.Errorf("%s: %v, expected ErrChecksum", name, err)
		} else if !strings.Contains(err.Error(), strings.TrimPrefix(name, "no ")) {
			t.Errorf("%s: the error does not say so: %v", name, err)
		}
	}
}
