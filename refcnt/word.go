package refcnt

import (
	"errors"
	"fmt"
)

// Sentinel errors of this package.
var (
	// ErrOverflow reports that a count has reached the limit of its field.
	ErrOverflow = errors.New("refcnt: count overflow")
	// ErrUnavailable reports that a folio of the range is free, unlinked, frozen or splitting.
	ErrUnavailable = errors.New("refcnt: folio free or frozen")
	// ErrSize reports that New cannot make a table of that many blocks, or with these orders.
	ErrSize = errors.New("refcnt: bad size")
)

// The states of a folio and the calls that move it between them:
//
//	free       counts 0              Own, Merge -> owned
//	owned      shares > 0, refs = 0  TryGet -> busy; last Disown -> free, reported;
//	                                 last Disown of a part -> splitting
//	busy       shares > 0, refs > 0  last Put -> owned; last Disown -> unlinked; last
//	                                 Disown of a part -> splitting, and a drain gets refs
//	unlinked   shares = 0, refs > 0  last Put -> free, reported; TryGet fails
//	frozen     owned or busy, and TryGet fails: Freeze sets it, Unfreeze clears it
//	splitting  refs = 0, TryGet fails: the thread that set it makes smaller folios
//
// A free block that a drain or a lease covers is pinned: the drain's last Put or the last Unlease
// reports it.
//
// The caller that froze a folio may also Disown it and Put its own references: the last of these
// frees the folio, and clears the mark with the word.
//
// The word of a folio, low bits first:
//
//	bits  0-23  refs      users in flight
//	bits 24-39  zero
//	bits 40-56  shares    owners
//	bit  57     partial   some owners own a part only, see Table.partlyOwned
//	bit  58     splitting
//	bit  59     frozen
//	bits 60-61  kind      of a pair's head: the kind of folio that starts here
//	bits 62-63  zero
const (
	refOne   = uint64(1)
	shareOne = uint64(1) << 40

	partial   = uint64(1) << 57
	splitting = uint64(1) << 58
	frozen    = uint64(1) << 59

	// The kinds of a pair's head. With no kind the piece is free, or it is in folios of 4 KiB, each
	// with a word of its own.
	kindPMD  = uint64(1) << 60 // a PMD folio
	kindPUD  = uint64(2) << 60 // the first piece of a PUD folio
	kindTail = uint64(3) << 60 // a later piece of a PUD folio
	kindMask = uint64(3) << 60

	refMask   = uint64(1)<<24 - 1
	shareMask = partial - shareOne

	// Limits of the counts.
	maxRefs   = refMask / refOne
	maxShares = shareMask / shareOne
)

func refsOf(w uint64) uint64   { return w & refMask }
func sharesOf(w uint64) uint64 { return w & shareMask / shareOne }

// state names the state of a word as the table above does.
func state(w uint64) string {
	switch {
	case w&(refMask|shareMask) == 0:
		return "free"
	case w&splitting != 0:
		return "splitting"
	case w&frozen != 0:
		return "frozen"
	case w&shareMask == 0:
		return "unlinked"
	case w&refMask == 0:
		return "owned"
	default:
		return "busy"
	}
}

// misuse reports a broken precondition. It does not return.
//
//go:noinline
func misuse(op string, block, w uint64) {
	panic(fmt.Sprintf("refcnt: %s of block %d: %s, refs %d, shares %d (word %#x)",
		op, block, state(w), refsOf(w), sharesOf(w), w))
}
