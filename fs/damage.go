package fs

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/daxfs/daxfs/fs/layout"
)

// damage is what metadata was found damaged since the mount. Each place is logged once; from the first
// on the filesystem is unmounted as one that fsck has to look at.
type damage struct {
	found atomic.Bool

	mu     sync.Mutex
	logged map[string]bool // protected by mu; at most damageLogged
}

// damageLogged is how many messages about damage one mount logs.
const damageLogged = 100

// met notes an error if it is that of damaged metadata, and returns it. What the mount itself meets
// makes it fail.
func (fs *FS) met(err error) error {
	if err == nil || fs.stop == nil || !errors.Is(err, ErrNeedsFsck) {
		return err
	}
	d := &fs.damage
	d.found.Store(true)
	d.mu.Lock()
	n, again := len(d.logged), d.logged[err.Error()]
	if !again && n < damageLogged {
		if d.logged == nil {
			d.logged = map[string]bool{}
		}
		d.logged[err.Error()] = true
	}
	d.mu.Unlock()
	if !again && n < damageLogged {
		fs.warn("%v", err)
	}
	return err
}

// lostLine is a line of a directory that cannot be read, or has a wrong checksum, with what belongs to it.
// They count as used, so that their block stays, and hold no name that can be found.
type lostLine struct {
	pos  uint32
	n    int          // lines
	line *layout.Line // nil: it cannot be read
}

// mayHold reports whether a name may be what the line held: some of its bytes are right, mostly. What
// cannot be read may have held any.
func (x *lostLine) mayHold(name string) bool {
	if x.line == nil {
		return true
	}
	part, same := x.line.NamePart(0, layout.HeadName), 0
	n := min(len(name), layout.HeadName)
	for i := range n {
		if part[i] == name[i] {
			same++
		}
	}
	return 2*same >= n
}

// lose notes lost lines of the directory block b, lines from i on.
func (d *dirIndex) lose(b, i, n int, l *layout.Line) {
	x := lostLine{pos: uint32(b*layout.LinesPerBlock + i), n: n}
	if l != nil {
		c := *l
		x.line = &c
	}
	d.lost = append(d.lost, x)
	d.used[b] |= lineMask(i, n)
	if d.lostLines == nil {
		d.lostLines = map[uint32]uint64{}
	}
	d.lostLines[uint32(b)] |= lineMask(i, n)
}

// lostLooked bounds the lost lines that are compared with a name: if there are more, one may have held it.
const lostLooked = 1000

// absent is the answer for a name that directory in has not, as far as it can be read.
func (fs *FS) absent(in *inode, name string) error {
	if n := len(in.dir.lost); n > lostLooked {
		return corruptf("directory %d has %d damaged lines, of which one may have held the name %q", in.ino, n, name)
	}
	for i := range in.dir.lost {
		if x := &in.dir.lost[i]; x.mayHold(name) {
			return corruptf("directory %d has a damaged line at offset %d, which may have held the name %q", in.ino, in.dir.lineOff(x.pos), name)
		}
	}
	return nil
}
