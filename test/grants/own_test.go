package grants

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
)

const (
	ownBlocks = 640 // of each file, at most: compaction makes folios of 2 MiB of it
	ownMost   = 16  // that are written or read at once
	unknown   = 0xfffff
)

// own is two files that only one actor uses, by all ways at once, so that it knows what every block
// must hold: the last version that was stored, whatever the way, as soon as the call has returned.
type own struct {
	files [2]ownFile
	id    uint64 // of the actor
	last  uint64 // version
	buf   []byte
}

type ownFile struct {
	f        *os.File
	d        *direct.File    // kept for all the time
	m        *direct.Mapping // to write; or nil
	cut      bool            // m has perhaps blocks that are no longer the file's
	versions []uint64        // of each block, up to the end of the file; 0: zeros
}

func newOwn(dir string, id uint64) (*own, error) {
	o := &own{id: id, buf: make([]byte, ownMost*blockSize)}
	for i := range o.files {
		x := &o.files[i]
		var err error
		if x.f, err = os.Create(filepath.Join(dir, fmt.Sprintf("own%d-%d", id, i))); err != nil {
			return nil, err
		}
		if x.d, err = direct.Open(x.f); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// owner returns the owner of both files: they share blocks.
func (o *own) owner() uint64 { return 0xa00000 | o.id }

// set records that blocks from block on, up to end, have a version now. What is not acknowledged
// because of err is unknown.
func (x *ownFile) set(block, end, acknowledged int, version uint64, err error) {
	for b := block; b < end; b++ {
		if b >= acknowledged {
			if err == nil {
				break
			}
			version = unknown
			if b >= len(x.versions) {
				break
			}
		}
		for b >= len(x.versions) {
			x.versions = append(x.versions, 0)
		}
		x.versions[b] = version
	}
}

// grown is size for a file that has only gained zeros.
func (x *ownFile) grown() error {
	n := len(x.versions)
	err := x.size()
	clear(x.versions[min(n, len(x.versions)):])
	return err
}

// size sets the number of blocks from the size that the file has: a write that failed may have
// changed it.
func (x *ownFile) size() error {
	info, err := x.f.Stat()
	if err != nil {
		return err
	}
	n := int((info.Size() + blockSize - 1) / blockSize)
	for n > len(x.versions) {
		x.versions = append(x.versions, unknown)
	}
	x.versions = x.versions[:n]
	return nil
}

// op does something with one of the files, and then requires that both hold what they must.
func (o *own) op(rng *rand.Rand) error {
	which := rng.IntN(2)
	x := &o.files[which]
	block := rng.IntN(ownBlocks)
	n := 1 + rng.IntN(min(ownMost, ownBlocks-block))
	off, p := int64(block*blockSize), o.buf[:n*blockSize]
	o.last = (o.last + 1) % (unknown - 1)
	version := o.last + 1
	stamp(p, o.owner(), uint64(block), version)
	var err error
	k := 0
	switch rng.IntN(16) {
	case 0, 1:
		k, err = x.f.WriteAt(p, off)
		x.set(block, block+n, block+k/blockSize, version, err)
	case 2, 3, 4:
		k, err = x.d.WriteAt(p, off)
		x.set(block, block+n, block+k/blockSize, version, err)
	case 5:
		if rng.IntN(4) > 0 {
			break
		}
		x.cut = true
		if err = x.f.Truncate(off); err == nil {
			x.set(block, block, block, 0, nil)
			for block > len(x.versions) {
				x.versions = append(x.versions, 0)
			}
			x.versions = x.versions[:block]
		}
	case 6:
		x.cut = true
		err = fallocate(x.f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(len(p)))
		end := min(block+n, len(x.versions))
		if err == nil {
			x.set(block, end, end, 0, nil)
		} else {
			x.set(block, end, block, 0, err)
		}
	case 7, 8:
		to := &o.files[1-which]
		n = min(n, len(x.versions)-block)
		if n <= 0 {
			break
		}
		in, out := off, off
		k, err = unix.CopyFileRange(int(x.f.Fd()), &in, int(to.f.Fd()), &out, n*blockSize, 0)
		k = max(k, 0)
		for i := range n {
			to.set(block+i, block+i+1, block+k/blockSize, x.versions[block+i], err)
		}
		if err == unix.EINTR {
			err = nil
		}
		err = errors.Join(err, to.size())
	case 9:
		err = x.mapped(rng)
	case 10: // a range of 2 MiB that has all its blocks is collapsed
		if err = fallocate(x.f, 0, 0, ownBlocks*blockSize); err == nil {
			err = x.grown()
		}
	default: // a program that maps to write need not look whether it is stale: no block moves
		if x.m == nil || x.cut {
			break
		}
		b := x.m.Bytes()
		n = min(n, len(b)/blockSize-block)
		if n <= 0 {
			break
		}
		copy(b[off:], p[:n*blockSize]) // a program that goes on without COMMIT
		x.set(block, block+n, block+n, version, nil)
	}
	if err != nil {
		err = errors.Join(err, x.size())
	}
	for i := range o.files {
		if e := o.files[i].verify(o, rng); e != nil {
			return errors.Join(e, err)
		}
	}
	return err
}

// mapped maps the whole file anew.
func (x *ownFile) mapped(rng *rand.Rand) (err error) {
	if x.m != nil {
		err = x.m.Close()
		x.m = nil
	}
	x.cut = false
	if n := len(x.versions); n > 0 && err == nil {
		x.m, err = x.d.Map(0, int64(n)*blockSize, direct.MapOptions{Write: true, Allocate: rng.IntN(2) == 0, PageSize: int64(rng.IntN(2)) << 21})
	}
	if errors.Is(err, direct.ErrRange) { // it has holes
		err = nil
	}
	return err
}

// verify reads some blocks by one of the ways.
func (x *ownFile) verify(o *own, rng *rand.Rand) error {
	block := rng.IntN(ownBlocks)
	p := o.buf[:(1+rng.IntN(min(ownMost, ownBlocks-block)))*blockSize]
	how, read := "ReadAt", x.d.ReadAt
	if rng.IntN(3) == 0 {
		how, read = "pread", x.f.ReadAt
	}
	n, err := read(p, int64(block)*blockSize)
	if err == io.EOF {
		err = nil
	}
	if want := max(0, min(len(p), (len(x.versions)-block)*blockSize)); err == nil && (n > want || n < want-blockSize) {
		err = fmt.Errorf("%w: %d bytes, expected %d", errForeign, n, want)
	}
	for i := 0; i+8 <= n && err == nil; i += 8 {
		b := block + i/blockSize
		w, v := binary.NativeEndian.Uint64(p[i:]), x.versions[b]
		switch {
		case v == unknown:
			err = check(p[i:i+8], o.owner(), uint64(block*blockSize+i))
		case v == 0 && w != 0 || v != 0 && w != word(o.owner(), uint64(b), v):
			err = fmt.Errorf("%w: %#x, expected version %d", errForeign, w, v)
		}
		if err != nil {
			err = fmt.Errorf("byte %#x of %d blocks: %w", block*blockSize+i, len(x.versions), err)
		}
	}
	if err != nil {
		return fmt.Errorf("%s of %s: %w", how, strconv.Quote(x.f.Name()), err)
	}
	return nil
}

// close ends all.
func (o *own) close() (err error) {
	for i := range o.files {
		x := &o.files[i]
		if x.m != nil {
			err = errors.Join(err, x.m.Close())
		}
		err = errors.Join(err, x.d.Close(), x.f.Close())
	}
	return err
}
