package grants

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A stamp fills a block with words that say whose it is: each aligned 8 bytes are stored at once,
// so that whoever reads during a write sees a word of the old or the new version.
//
//	bits 63..56 mark    55..32 owner    31..20 file block    19..0 version
const mark = 0xd5

func word(owner, block, version uint64) uint64 {
	return mark<<56 | owner&0xffffff<<32 | block&0xfff<<20 | version&0xfffff
}

// stamp fills the blocks of p, which begin at file block block.
func stamp(p []byte, owner, block, version uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.NativeEndian.PutUint64(p[i:], word(owner, block+uint64(i)/blockSize, version))
	}
}

var errForeign = errors.New("a word that is not of this file")

// check requires that p, the bytes of a file from byte off on, are the owner's or zeros.
func check(p []byte, owner, off uint64) error {
	for i := 0; i+8 <= len(p); i += 8 {
		w := binary.NativeEndian.Uint64(p[i:])
		block := (off + uint64(i)) / blockSize
		if w != 0 && w&^0xfffff != word(owner, block, 0) {
			return fmt.Errorf("%w: byte %#x of the file of owner %#x, in block %#x, is of word %#016x: mark %#x, owner %#x, block %#x, version %d",
				errForeign, off+uint64(i), owner, block, w, w>>56, w>>32&0xffffff, w>>20&0xfff, w&0xfffff)
		}
	}
	return nil
}
