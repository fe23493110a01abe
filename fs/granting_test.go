package fs_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// granting is a volume whose files programs map. The programs are the test.
type granting struct {
	*volume
	locks *lease.Fake
	said  []string // messages of the mount
}

func newGranting(t *testing.T, size int64) *granting {
	locks := new(lease.Fake)
	v := &granting{locks: locks}
	o := fs.Options{Direct: fs.DirectWrite, Locks: locks, Warn: func(m string) { v.said = append(v.said, m) }}
	v.volume = &volume{fstest.Format(t, fstest.Memory(t, size), fstest.Small, o)}
	return v
}

// grant asks for file blocks [lo, hi), takes the locks, and confirms.
func (v *granting) grant(ino, lo, hi uint64, write bool) *lease.Grant {
	v.Helper()
	g, _, e := v.FS.Direct().Grant(&v.Ctx, ino, &fs.GrantQuery{Lo: lo, Hi: hi, Write: write, Most: 100, Handle: 1})
	if e != 0 {
		v.Fatalf("grant of blocks %d to %d: %v", lo, hi, e)
	}
	v.locks.Use(g, 4096, 1)
	v.OK(v.FS.Direct().Confirm(&v.Ctx, ino, g.ID, g.Generation))
	return g
}

// end ends the lease of a grant, and waits until its blocks are given up.
func (v *granting) end(g *lease.Grant) {
	v.Helper()
	v.locks.Use(g, 4096, -1)
	v.sweepOut()
}

// sweepOut ends all leases whose locks have gone, and waits until their blocks are given up.
func (v *granting) sweepOut() {
	v.Helper()
	for range 2 {
		if err := v.FS.Direct().Sweep(); err != nil {
			v.Fatal(err)
		}
		time.Sleep(lease.Quarantine)
	}
	if err := v.FS.Direct().Sweep(); err != nil {
		v.Fatal(err)
	}
}

func (v *granting) generation(g *lease.Grant) uint64 {
	v.Helper()
	var b [8]byte
	if err := v.R.Load(g.Slot+protocol.SlotGeneration, b[:]); err != nil {
		v.Fatal(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// bytesOf returns what a program sees that maps a grant: the region, and zeros for holes.
func (v *granting) bytesOf(g *lease.Grant) []byte {
	b := make([]byte, (g.Hi-g.Lo)*4096)
	for _, p := range g.Parts {
		copy(b[(p.Logical-g.Lo)*4096:], v.R.Bytes(int64(p.Block)*4096, int64(p.N)*4096))
	}
	return b
}

// bytesIn reports whether a file has a byte.
func (v *granting) bytesIn(ino uint64, b byte) bool {
	for off := int64(0); ; off += 1 << 20 {
		got := v.Read(ino, off, 1<<20)
		if bytes.IndexByte(got, b) >= 0 {
			return true
		}
		if len(got) < 1<<20 {
			return false
		}
	}
}
