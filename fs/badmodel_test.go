package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// badModel is the expected content of a file: its bytes, and the file blocks whose content is lost.
type badModel struct {
	ino  uint64
	data []byte
	bad  map[int64]bool
}

// cut truncates the file, and drops the bad blocks beyond its end.
func (m *badModel) cut(size int) {
	for b := range m.bad {
		if b<<12 >= int64(size) {
			delete(m.bad, b)
		}
	}
}

// TestBadRangesRandom writes, punches, zeroes, truncates, shares and removes files whose blocks
// turn bad now and then. A read returns the right bytes or EIO, and bad blocks stay offline,
// however the filesystem is mounted.
func TestBadRangesRandom(t *testing.T) {
	seeds := int64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			v := newVolume(t, fs.MinSize)
			v.Options.Atomic, v.Unmerged = seed%2 == 1, true
			if v.Options.Atomic {
				v.Unmount()
				v.Mount()
			}
			rnd := rand.New(rand.NewSource(seed))
			files := make([]*badModel, 4)
			marked := 0
			for step := range 600 {
				i := rnd.Intn(len(files))
				if files[i] == nil {
					files[i] = &badModel{ino: v.Create(fmt.Sprint("/f", i)), bad: map[int64]bool{}}
				}
				m := files[i]
				off := rnd.Intn(80_000)
				n := 1 + rnd.Intn(30_000)
				if rnd.Intn(2) == 0 {
					off, n = off&^4095, (n+4095)&^4095
				}
				touches := func(off, n int) (part, any bool) { // part: covers a bad block in part; any: covers a bad block at all
					for b := range m.bad {
						lo, hi := int(b)<<12, min(int(b+1)<<12, max(len(m.data), off+n))
						if off < hi && off+n > lo {
							any = true
							part = part || off > lo || off+n < hi
						}
					}
					return part, any
				}
				// A file that grows from inside a bad block would have to zero the rest of the
				// block.
				grows := func(end int) bool {
					return end > len(m.data) && len(m.data)%4096 != 0 && m.bad[int64(len(m.data)>>12)]
				}
				grow := func(end int) {
					if end > len(m.data) {
						m.data = append(m.data, make([]byte, end-len(m.data))...)
					}
				}
				healed := func(lo, hi int) { // only whole blocks heal
					for b := range m.bad {
						if int(b)<<12 >= lo && (int(b+1)<<12 <= hi || hi >= len(m.data) && int(b)<<12 < hi) {
							delete(m.bad, b)
						}
					}
				}
				switch op := rnd.Intn(12); {
				case op < 5:
					b := make([]byte, n)
					rnd.Read(b)
					part, _ := touches(off, n)
					fails := part || grows(off) || grows(off+n) && off > len(m.data)
					k, e := v.FS.Write(&v.Ctx, m.ino, int64(off), b)
					if e == syscall.ENOSPC || k == n && !part {
						grow(off + k)
						copy(m.data[off:], b[:k])
						healed(off, off+k)
						break
					}
					if !fails || e != syscall.EIO && k == n {
						t.Fatalf("step %d: write of %d at %d of %d bytes, bad %v: %d, %v", step, n, off, len(m.data), m.bad, k, e)
					}
					v.resync(m)
				case op < 7:
					if len(m.data) == 0 || marked > 60 {
						break
					}
					at := rnd.Intn(len(m.data)) >> 12
					if v.FS.MarkBad(m.ino, int64(at)<<12, 1) == nil {
						marked++
						v.resyncAll(files)
					}
				case op == 7:
					mode := fs.FallocPunchHole | fs.FallocKeepSize
					if rnd.Intn(2) == 0 {
						mode = fs.FallocZeroRange | fs.FallocKeepSize
					}
					if e := v.FS.Fallocate(&v.Ctx, m.ino, mode, int64(off), int64(n)); e != 0 && e != syscall.EIO && e != syscall.ENOSPC {
						t.Fatalf("step %d: fallocate: %v", step, e)
					} else if e == syscall.EIO && len(m.bad) == 0 {
						t.Fatalf("step %d: fallocate fails with nothing bad", step)
					} else if e == 0 && off%4096 == 0 && n%4096 == 0 {
						for b := range m.bad {
							if int(b)<<12 >= off && int(b)<<12 < off+n {
								delete(m.bad, b)
							}
						}
						if off < len(m.data) {
							clear(m.data[off:min(len(m.data), off+n)])
						}
						v.compareBad(m, step)
					}
					v.resync(m)
				case op == 8:
					e := v.FS.SetAttr(&v.Ctx, m.ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(off)}, new(fs.Attr))
					if e == syscall.EIO && grows(off) {
						break
					}
					v.OK(e)
					grow(off)
					m.data = m.data[:off]
					m.cut(off)
				case op == 9:
					src := files[rnd.Intn(len(files))]
					if src == nil || src == m {
						break
					}
					k, e := v.FS.CopyRange(&v.Ctx, src.ino, 0, m.ino, int64(off&^4095), int64(len(src.data)))
					if e != 0 && e != syscall.EIO && e != syscall.ENOSPC || e == syscall.EIO && len(src.bad)+len(m.bad) == 0 {
						t.Fatalf("step %d: copy: %d, %v", step, k, e)
					}
					if e == 0 && len(src.bad) > 0 {
						for b := range src.bad {
							if k > b<<12 {
								t.Fatalf("step %d: copied %d bytes, block %d is bad", step, k, b)
							}
						}
					}
					v.resync(m)
				case op == 10 && rnd.Intn(3) == 0:
					v.Unlink(fmt.Sprint("/f", i))
					v.FS.Forget(m.ino, 1)
					files[i] = nil
				case op == 11 && rnd.Intn(3) == 0:
					if rnd.Intn(2) == 0 {
						v.Crash()
						v.Mount()
					} else {
						v.remountBad()
					}
					for _, f := range files {
						if f != nil {
							v.OK(v.FS.Ref(&v.Ctx, f.ino, new(fs.Attr)))
						}
					}
				}
				if files[i] != nil {
					v.compareBad(m, step)
				}
			}
			for _, m := range files {
				if m != nil {
					v.compareBad(m, -1)
				}
			}
			v.remountBad()
			for i, m := range files {
				if m != nil {
					v.Unlink(fmt.Sprint("/f", i))
				}
			}
			v.remountBad()
			if s := v.FS.Stats(); marked == 0 || s.OfflineBytes != s.BadBytes || v.Options.Atomic != (s.AtomicWrite > 8) {
				t.Errorf("%d blocks were marked; %d bytes are bad and %d retired", marked, s.BadBytes, s.OfflineBytes)
			}
		})
	}
}

// compareBad compares a file with the model, block by block.
func (v *volume) compareBad(m *badModel, step int) {
	v.Helper()
	for off := 0; off < len(m.data); off += 4096 {
		want := m.data[off:min(len(m.data), off+4096)]
		got, e := v.Take(m.ino, int64(off), 4096)
		if m.bad[int64(off)>>12] {
			if e != syscall.EIO {
				v.Fatalf("step %d: inode %d, bad block %d: %v", step, m.ino, off>>12, e)
			}
		} else if e != 0 || !bytes.Equal(got, want) {
			v.Fatalf("step %d: inode %d, block %d: %d bytes, %v", step, m.ino, off>>12, len(got), e)
		}
	}
}

// resync makes the model what a failed operation left: of each byte the old or the new value.
func (v *volume) resync(m *badModel) {
	v.Helper()
	a := v.Stat(m.ino)
	m.data, m.bad = make([]byte, a.Size), map[int64]bool{}
	for off := 0; off < len(m.data); off += 4096 {
		got, e := v.Take(m.ino, int64(off), 4096)
		if e != 0 {
			m.bad[int64(off)>>12] = true
		}
		copy(m.data[off:], got)
	}
}

func (v *volume) resyncAll(files []*badModel) {
	for _, m := range files {
		if m != nil {
			v.resync(m)
		}
	}
}

// remountBad is Remount of a filesystem whose files may have lost data.
func (v *volume) remountBad() {
	v.Helper()
	rep, before, scanned, now := v.Cycle()
	if rep.Left != rep.LostRanges {
		v.Fatalf("fsck: %+v", rep)
	}
	for _, s := range []*fs.Stats{&before, &now, &scanned} {
		s.Folios4K, s.Folios2M, s.Folios1G, s.Split2M, s.PartlyOwned, s.PMDMappable, s.PUDMappable, s.DeferredFrees = 0, 0, 0, 0, 0, 0, 0, 0
	}
	if before != now || now != scanned {
		v.Fatalf("before the unmount:\n%+v, by the free map:\n%+v, by a scan:\n%+v", before, now, scanned)
	}
}
