package direct

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

// model is a file of which the test knows what it must hold.
type model struct {
	*testing.T
	rng   *rand.Rand
	file  *os.File // by the mount
	other *os.File // whose blocks it shares now and then
	bytes []byte
}

const modelSize = 6 << 20 // the largest size in bytes

// span returns a range inside the largest file, now and then of whole blocks.
func (m *model) span() (off, n int64) {
	off, n = int64(m.rng.IntN(modelSize)), int64(1+m.rng.IntN(1<<(4+m.rng.IntN(17))))
	if m.rng.IntN(2) == 0 {
		off, n = off&^4095, (n+4095)&^4095
	}
	return off, min(n, modelSize-off)
}

func (m *model) random(n int64) []byte {
	b := make([]byte, n)
	x := m.rng.Uint64() | 1
	for i := range b {
		b[i] = byte(x >> (8 * (i & 7)))
		if i&7 == 7 {
			x = x*6364136223846793005 + 1
		}
	}
	return b
}

// grow makes the model at least n bytes long.
func (m *model) grow(n int64) {
	if n > int64(len(m.bytes)) {
		m.bytes = append(m.bytes, make([]byte, n-int64(len(m.bytes)))...)
	}
}

func (m *model) store(off int64, b []byte) {
	m.grow(off + int64(len(b)))
	copy(m.bytes[off:], b)
}

func (m *model) clear(off, n int64) {
	if off < int64(len(m.bytes)) {
		clear(m.bytes[off:min(off+n, int64(len(m.bytes)))])
	}
}

func (m *model) must(what string, err error) {
	m.Helper()
	if err != nil {
		m.Fatalf("%s: %v", what, err)
	}
}

// change makes one change through the mount.
func (m *model) change() string {
	off, n := m.span()
	fd := int(m.file.Fd())
	switch op := m.rng.IntN(9); op {
	case 0, 1, 2:
		b := m.random(n)
		_, err := m.file.WriteAt(b, off)
		m.must("write", err)
		m.store(off, b)
		return fmt.Sprintf("write %d+%d", off, n)
	case 3:
		m.must("truncate", m.file.Truncate(off))
		m.grow(off)
		m.bytes = m.bytes[:off]
		return fmt.Sprintf("truncate %d", off)
	case 4:
		m.must("punch", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n))
		m.clear(off, n)
		return fmt.Sprintf("punch %d+%d", off, n)
	case 5:
		m.must("zero", unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n))
		m.clear(off, n)
		return fmt.Sprintf("zero %d+%d", off, n)
	case 6:
		m.must("allocate", unix.Fallocate(fd, 0, off, n))
		m.grow(off + n)
		return fmt.Sprintf("allocate %d+%d", off, n)
	case 7: // blocks of the other file, which has the byte 7 everywhere
		from, to := off, off
		k, err := unix.CopyFileRange(int(m.other.Fd()), &from, fd, &to, int(n), 0)
		m.must("copy_file_range", err)
		m.store(off, bytes.Repeat([]byte{7}, k))
		return fmt.Sprintf("copy %d+%d", off, k)
	default: // its own blocks to the other file and back: they are shared
		if off >= int64(len(m.bytes)) {
			return "nothing"
		}
		from, to := off, off
		_, err := unix.CopyFileRange(fd, &from, int(m.other.Fd()), &to, int(n), 0)
		m.must("copy_file_range to the other file", err)
		_, err = m.other.WriteAt(bytes.Repeat([]byte{7}, int(n)), off)
		m.must("write to the other file", err)
		return fmt.Sprintf("share %d+%d", off, n)
	}
}

// check compares a range that is read directly, and now and then by the mount.
func (m *model) check(d io.ReaderAt, what string) {
	m.Helper()
	off, n := m.span()
	want := m.bytes[min(off, int64(len(m.bytes))):min(off+n, int64(len(m.bytes)))]
	got := make([]byte, n)
	k, err := d.ReadAt(got, off)
	if err != nil && err != io.EOF || k != len(want) || (k < int(n)) != (err == io.EOF) {
		m.Fatalf("after %s: ReadAt %d+%d of %d bytes: %d, %v", what, off, n, len(m.bytes), k, err)
	}
	if !bytes.Equal(got[:k], want) {
		i := 0
		for got[i] == want[i] {
			i++
		}
		m.Fatalf("after %s: byte %d is %#x, want %#x", what, off+int64(i), got[i], want[i])
	}
}

// TestModel changes a file through the mount and directly in turns, and reads it both ways: each
// read sees every change before it. A second program has the file mapped to write now and then:
// what it stores is in the file unless the mapping says that it is stale.
func TestModel(t *testing.T) {
	m := harness.New(t, 128<<20, limit)
	for seed := range uint64(4) {
		f, err := os.Create(m.Path(fmt.Sprint("f", seed)))
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.Create(m.Path(fmt.Sprint("other", seed)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Write(bytes.Repeat([]byte{7}, modelSize)); err != nil {
			t.Fatal(err)
		}
		mo := &model{T: t, rng: rand.New(rand.NewPCG(seed, 6)), file: f, other: other}
		d := open(t, f.Name(), os.O_RDWR)
		var mapped *direct.Mapping
		var from int64
		calls := int64(0)
		for i := range 400 {
			what := ""
			switch k := mo.rng.IntN(8); {
			case k < 3:
				what = mo.change()
			case k < 6:
				off, n := mo.span()
				b := mo.random(n)
				if k, err := d.WriteAt(b, off); k != len(b) || err != nil {
					t.Fatalf("WriteAt %d+%d: %d, %v", off, n, k, err)
				}
				calls++
				mo.store(off, b)
				what = fmt.Sprintf("WriteAt %d+%d", off, n)
			case k == 6 && mapped == nil && len(mo.bytes) > 8192:
				from = int64(mo.rng.IntN(len(mo.bytes)-8192)) &^ 4095
				n := int64(1 + mo.rng.IntN(len(mo.bytes)-int(from)))
				mapped, err = d.Map(from, n, direct.MapOptions{Write: true, Allocate: true})
				if err != nil {
					t.Fatalf("map %d+%d of %d: %v", from, n, len(mo.bytes), err)
				}
				what = fmt.Sprintf("map %d+%d", from, n)
			case mapped != nil:
				what = mo.mapping(mapped, from)
				if mo.rng.IntN(3) == 0 || mapped.Stale() {
					mo.must("close", mapped.Close())
					mapped = nil
				}
			}
			if mo.rng.IntN(5) == 0 { // so that the library asks again for what changed
				time.Sleep(11 * time.Millisecond)
			}
			mo.check(d, what)
			mo.check(d, what)
			calls += 2
			if i%16 == 0 {
				mo.check(f, what)
			}
		}
		t.Logf("%d of %d calls went the normal way", d.Normal(), calls)
		if d.Normal() > calls*3/4 {
			t.Errorf("%d of %d calls went the normal way", d.Normal(), calls)
		}
		if mapped != nil {
			mapped.Close()
		}
		d.Close()
		f.Close()
		other.Close()
	}
	m.Down()
}

// mapping compares what a mapping shows, if it is not stale, and stores to it.
func (m *model) mapping(mp *direct.Mapping, from int64) string {
	b := mp.Bytes()
	if mp.Stale() {
		return "nothing"
	}
	// A truncation inside the last block moves no block: what is stored behind the end is lost.
	b = b[:min(len(b), len(m.bytes)-int(from))]
	if len(b) == 0 {
		return "nothing"
	}
	if !bytes.Equal(b, m.bytes[from:int(from)+len(b)]) {
		m.Fatal("a mapping that is not stale shows other bytes than the file has")
	}
	off := int64(m.rng.IntN(len(b)))
	data := m.random(1 + int64(m.rng.IntN(len(b)-int(off))))
	copy(b[off:], data)
	m.must("flush", mp.Flush(off, int64(len(data))))
	m.store(from+off, data)
	return fmt.Sprintf("store %d+%d", from+off, len(data))
}
