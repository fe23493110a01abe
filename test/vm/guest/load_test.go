package guest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/daxfsd/daxfsd/test/harness"
	"github.com/daxfsd/daxfsd/test/oracle"
)

// load writes files from several goroutines, in requests of many sizes and offsets, some parts
// repeatedly, and reads them in requests of other sizes. It compares every byte, before and after a
// remount and an fsck.
func load(t *testing.T, transport string) {
	if transport == "uring" {
		harness.Uring(t)
	}
	m := harness.NewWith(t, "transport="+transport, 0, limit)
	const writers, size, writes = 4, 12 * mib, 150
	var sums [writers]uint32
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			want, err := write(m.Path(fmt.Sprint("file", w)), uint64(w), size, writes)
			if err == nil {
				err = read(m.Path(fmt.Sprint("file", w)), want, uint64(w))
			}
			if err != nil {
				t.Errorf("writer %d: %v", w, err)
			}
			sums[w] = crc32.ChecksumIEEE(want)
		})
	}
	wg.Wait()
	m.Down()
	m.Up()
	for w := range writers {
		got, err := os.ReadFile(m.Path(fmt.Sprint("file", w)))
		if err != nil || crc32.ChecksumIEEE(got) != sums[w] {
			t.Errorf("after a remount file%d has %d bytes with checksum %x, want %x (%v)", w, len(got), crc32.ChecksumIEEE(got), sums[w], err)
		}
	}
	m.Down()
}

// write creates and writes a file of size bytes, with further random writes, and returns the
// content that the file must have.
func write(name string, seed uint64, size, writes int) ([]byte, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	want := oracle.Fill(seed+1, int64(size))
	for off := 0; off < size; off += mib {
		if _, err := f.WriteAt(want[off:off+mib], int64(off)); err != nil {
			return nil, err
		}
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for range writes {
		off := rng.IntN(size)
		n := min(1+rng.IntN(1<<(4+rng.IntN(15))), size-off)
		copy(want[off:], oracle.Fill(rng.Uint64(), int64(n)))
		if _, err := f.WriteAt(want[off:off+n], int64(off)); err != nil {
			return nil, err
		}
	}
	return want, f.Sync()
}

func read(name string, want []byte, seed uint64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(seed, 2))
	buf := make([]byte, mib)
	for off := 0; off < len(want); {
		n := min(1+rng.IntN(mib), len(want)-off)
		if _, err := f.ReadAt(buf[:n], int64(off)); err != nil {
			return err
		}
		if !bytes.Equal(buf[:n], want[off:off+n]) {
			return fmt.Errorf("the %d bytes at %d differ from what was written", n, off)
		}
		off += n
	}
	return nil
}
