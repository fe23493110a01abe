package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/daxfsd/daxfsd/pmem"
)

// contentOf names what a region holds; "" if it holds only zeros. It fails with pmem.ErrCancelled
// when cancel is closed; cancel may be nil.
func contentOf(c pmem.Content, p progressFunc, cancel <-chan struct{}) (string, error) {
	if what := recognise(c.Size(), c.Load); what != "" {
		return what, nil
	}
	off, err := firstData(c, p, cancel)
	if err != nil || off < 0 {
		return "", err
	}
	return fmt.Sprintf("unrecognised data, the first at offset %d", off), nil
}

// firstData returns the offset in bytes of the first byte that is not zero, or -1. It skips holes
// of the file, and memory that cannot be read, which holds nothing any more.
func firstData(c pmem.Content, p progressFunc, cancel <-chan struct{}) (int64, error) {
	const page = 4096
	buf := make([]byte, 256<<10)
	zeros := make([]byte, len(buf))
	for off, end := c.NextData(0); off < c.Size(); {
		select {
		case <-cancel:
			return 0, pmem.ErrCancelled
		default:
		}
		p("looking for data", off, c.Size())
		b := buf[:min(int64(len(buf)), end-off)]
		err := c.Load(off, b)
		if errors.Is(err, pmem.ErrMedia) && len(b) > page {
			b = b[:min(int64(page), page-off%page)]
			err = c.Load(off, b)
		}
		switch {
		case errors.Is(err, pmem.ErrMedia):
		case err != nil:
			return 0, err
		case !bytes.Equal(b, zeros[:len(b)]):
			return off + int64(bytes.IndexFunc(b, func(r rune) bool { return r != 0 })), nil
		}
		if off += int64(len(b)); off >= end {
			off, end = c.NextData(off)
		}
	}
	return -1, nil
}
