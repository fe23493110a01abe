package random

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

const (
	page = 4096
	huge = 2 << 20
)

// A file is one file of the file exerciser: its handles, its mappings and its model.
type file struct {
	name    string
	model   []byte // the content; its capacity is the largest size
	claimed int64  // bytes up to which blocks may be allocated: the size, or more after a fallocate with KEEP_SIZE
	handles []handle
	maps    []mapping
	dirty   bool // stored to through a mapping, and not written back by the test since
	orphan  int  // number of operations left without a name; 0: it has a name
}

// A handle is one open(2) of a file.
type handle struct {
	fd    int
	flags int
}

// A mapping is a shared writable mapping of the file from byte off on.
type mapping struct {
	off int64
	mem []byte
}

func (f *file) size() int64 { return int64(len(f.model)) }

// resize sets the size of the model to n bytes. New bytes are zero.
func (f *file) resize(n int64) {
	old := f.size()
	f.model = f.model[:n]
	if n > old {
		clear(f.model[old:])
	}
}

// put stores data into the model at byte off.
func (f *file) put(off int64, data []byte) {
	if end := off + int64(len(data)); end > f.size() {
		f.resize(end)
	}
	copy(f.model[off:], data)
	f.claimed = max(f.claimed, f.size())
}

// zero clears the bytes [off, end) of the model, up to its size.
func (f *file) zero(off, end int64) {
	if end = min(end, f.size()); off < end {
		clear(f.model[off:end])
	}
}

// differs returns where got, read at byte off, differs from want; "" if it does not.
func differs(off int64, got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes at %d, want %d", len(got), off, len(want))
	}
	first, last, n := -1, 0, 0
	for i := range got {
		if got[i] != want[i] {
			if first < 0 {
				first = i
			}
			last = i
			n++
		}
	}
	part := func(b []byte) []byte { return b[first:min(first+16, len(b))] }
	return fmt.Sprintf("offset %d (%#x): got % x, want % x; %d bytes differ, the last at %d", off+int64(first), off+int64(first), part(got), part(want), n, off+int64(last))
}

// isZero reports whether all bytes of b are zero.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeros = make([]byte, 64<<10)

// dice chooses offsets and lengths at which filesystems tend to be wrong.
type dice struct {
	*rand.Rand
	pool []byte // random bytes
}

func newDice(seed, stream uint64) dice {
	d := dice{Rand: rand.New(rand.NewPCG(seed, stream)), pool: make([]byte, 9<<20)}
	for i := range d.pool {
		d.pool[i] = byte(d.Uint32())
	}
	return d
}

// offset returns an offset in [0, limit], in bytes, often at or near the end of file or an edge of
// a page or folio.
func (d dice) offset(size, limit int64) int64 {
	o := d.Int64N(limit + 1)
	switch d.IntN(8) {
	case 0:
		o = size
	case 1:
		o = size + d.Int64N(2*page) - page
	case 2:
		o = o &^ (page - 1)
	case 3:
		o = o&^(page-1) + d.Int64N(9) - 4
	case 4:
		o = o &^ (huge - 1)
	case 5:
		o = o&^(huge-1) + d.Int64N(2*page) - page
	case 6:
		if size > 0 {
			o = d.Int64N(size)
		}
	}
	return min(max(o, 0), limit)
}

// length returns a length in [1, limit], in bytes, mostly small.
func (d dice) length(limit int64) int64 {
	n := int64(1) << d.IntN(18)
	n += d.Int64N(n)
	switch d.IntN(64) {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		n = page
	case 8, 9:
		n = page * (1 + d.Int64N(64))
	case 10:
		n = 1<<20 + d.Int64N(1<<20)
	case 11:
		n = huge
	case 12:
		n = limit / 8
	}
	return min(max(n, 1), limit)
}

// data returns n bytes that begin with the number of the operation, or, rarely, zeros.
func (d dice) data(n int64, op int) []byte {
	if d.IntN(64) == 0 && n <= int64(len(zeros)) {
		return zeros[:n]
	}
	o := d.Int64N(int64(len(d.pool)) - n + 1)
	b := d.pool[o : o+n]
	if n >= 8 {
		b = append([]byte(nil), b...)
		copy(b, fmt.Sprintf("%08d", op))
	}
	return b
}

// retry repeats a call that a signal of Go's scheduler interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

// do is retry for calls that return only an error.
func do(call func() error) error {
	_, err := retry(func() (int, error) { return 0, call() })
	return err
}
