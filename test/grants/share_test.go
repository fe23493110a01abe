package grants

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/test/harness"
)

const passProcesses = 4

// TestTwoOnOneBlock has two programs map one block, and one folio of 2 MiB, of a file: each sees
// what the other one stores, and what both map stays when one of them dies, the file is deleted
// and the filesystem is full.
func TestTwoOnOneBlock(t *testing.T) {
	t.Parallel()
	m := harness.New(t, 64<<20, 2*time.Minute)
	if err := errors.Join(os.WriteFile(m.Path("first"), nil, 0o644), os.Remove(m.Path("first"))); err != nil {
		t.Fatal(err)
	}
	ends(t, m)
	free := m.Stats().FreeBlocks
	for _, c := range []struct {
		name   string
		blocks uint64
	}{{"block", 1}, {"folio", 512}} {
		t.Run(c.name, func(t *testing.T) {
			name := m.Path(c.name)
			b := make([]byte, c.blocks*blockSize)
			stamp(b, 5, 0, 0)
			f := must(os.Create(name))(t)
			defer f.Close()
			if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(len(b))); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			last := int(c.blocks-1) * blockSize
			// The first one maps all of it, the second one the last block only.
			whole := holdFile(t, name, "r", 5, "part", "0", strconv.FormatUint(c.blocks, 10))
			part := holdFile(t, name, "r", 5, "part", strconv.FormatUint(c.blocks-1, 10), "1")
			both := must(lease(name, protocol.GrantRequest{Flags: protocol.Write, Length: c.blocks * blockSize}))(t)
			seen := must(lease(name, protocol.GrantRequest{Offset: uint64(last), Length: blockSize}))(t)
			binary.NativeEndian.PutUint64(both.mem[0].mem[last+8:], word(5, c.blocks-1, 9))
			if w := binary.NativeEndian.Uint64(seen.mem[0].mem[8:]); w != word(5, c.blocks-1, 9) {
				t.Errorf("one program stored, and another one sees %#x", w)
			}
			both.end()
			seen.end()
			f.Close()
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			whole.stored(t)
			whole.killed(t)
			filler := fill(t, m)
			part.stored(t)
			part.killed(t)
			filler.Close()
			ends(t, m)
			if err := os.Remove(filler.Name()); err != nil {
				t.Fatal(err)
			}
			ends(t, m)
			if now := m.Stats().FreeBlocks; now != free {
				t.Errorf("%d blocks are free, expected %d", now, free)
			}
		})
	}
}

// must returns a function that fails the test on an error, and otherwise returns v.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// passer takes a lease before it gives its last one up, over and over: its arguments are the file,
// the seed, and how often. Each lease increments a word of each block, which no other process does.
func passer(args []string) error {
	rng := rand.New(rand.NewPCG(number(args[1]), 4))
	which := number(args[1]) % passProcesses
	var last *raw
	for n := uint64(1); n <= number(args[2]); n++ {
		c, err := lease(args[0], protocol.GrantRequest{Flags: protocol.Write, Length: 4 * blockSize})
		for errors.Is(err, unix.ENOLCK) { // others have dropped leases, and nobody has looked yet
			time.Sleep(time.Millisecond)
			c, err = lease(args[0], protocol.GrantRequest{Flags: protocol.Write, Length: 4 * blockSize})
		}
		if err != nil {
			return fmt.Errorf("grant %d: %w", n, err)
		}
		for _, p := range c.mem {
			for i := 0; i < len(p.mem); i += blockSize {
				w := p.mem[i+int(which)*8:][:8]
				if v := binary.NativeEndian.Uint64(w); v != n-1 {
					return fmt.Errorf("grant %d: block %d has %d", n, i/blockSize, v)
				}
				binary.NativeEndian.PutUint64(w, n)
			}
		}
		if last != nil {
			_ = last.unmap()
			last.desc.Close()
			if rng.IntN(4) > 0 { // a hint that a program may leave out
				if err := last.release(); err != nil && err != unix.ENOENT { // ENOENT: a sweep has seen it already
					return fmt.Errorf("RELEASE: %w", err)
				}
			}
			last.end()
		}
		last = c
	}
	return nil
}

// TestLeasePassedOn passes the lease of some blocks on among processes whose leases overlap:
// nothing that they stored is lost, and in the end no lease is left.
func TestLeasePassedOn(t *testing.T) {
	t.Parallel()
	base := seeded(t)
	m := harness.New(t, 32<<20, 2*time.Minute+time.Duration(*passes)*2*time.Millisecond)
	fresh := used(t, m)
	if err := os.Mkdir(m.Path("files"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := m.Path("files", "passed")
	if err := os.WriteFile(name, make([]byte, 4*blockSize), 0o644); err != nil {
		t.Fatal(err)
	}
	each := *passes / passProcesses
	begun := time.Now()
	var all []*child
	for i := range passProcesses {
		all = append(all, start(t, "pass", name, strconv.FormatUint(base/passProcesses*passProcesses+uint64(i), 10), strconv.Itoa(each)))
	}
	for _, c := range all {
		c.succeeds(t)
	}
	took := time.Since(begun)
	b := must(os.ReadFile(name))(t)
	for i := 0; i < len(b); i += blockSize {
		for which := range passProcesses {
			if v := binary.NativeEndian.Uint64(b[i+8*which:]); v != uint64(each) {
				t.Errorf("block %d has %d of process %d, expected %d", i/blockSize, v, which, each)
			}
		}
	}
	ends(t, m)
	empty(t, m, m.Path("files"), fresh)
	t.Logf("%d grants in %v, %v each", passProcesses*each, took.Round(time.Millisecond), took/time.Duration(each))
}
