package fs_test

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
)

// stamp fills b, which begins at file offset off (a multiple of 8), with words that identify the
// file.
func stamp(b []byte, owner uint64) {
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], owner)
	}
}

// stampOf is the word that stamp puts into a file's blocks.
func stampOf(a *fs.Attr) uint64 { return a.Ino<<32 | uint64(a.Gen) }

// foreignWords counts the stamps in b that are neither the owner's nor zero.
func foreignWords(b []byte, owner uint64) (n int64) {
	for j := 0; j+8 <= len(b); j += 512 {
		if g := binary.LittleEndian.Uint64(b[j:]); g != 0 && g != owner {
			n++
		}
	}
	return n
}

// foreignIn is foreignWords of n bytes of a file from byte off on.
func (v *volume) foreignIn(ctx *fs.Caller, ino uint64, off int64, n int, owner uint64) (bad int64, e syscall.Errno) {
	r := v.FS.NewPinnedRead()
	defer r.Free()
	if e = v.FS.Read(ctx, ino, off, n, r); e != 0 {
		return 0, e
	}
	defer r.Done()
	for _, s := range r.Slices() {
		bad += foreignWords(s, owner)
	}
	return bad, 0
}

// renew replaces a file in the root by an empty one of the same name, if others let it.
func (v *volume) renew(ctx *fs.Caller, name string) {
	v.FS.Unlink(ctx, 1, name)
	var a fs.Attr
	if v.FS.Mknod(ctx, 1, name, syscall.S_IFREG, 0, &a) == 0 {
		v.FS.Forget(a.Ino, 1)
	}
}

// TestStressStamps holds pinned reads while other threads truncate, unlink and rewrite. Each word
// that is read must be the file's own stamp or zero.
func TestStressStamps(t *testing.T) { stressStamps(t, newVolume(t, fs.MinSize)) }

// TestStressStampsAtomic is TestStressStamps with Options.Atomic.
func TestStressStampsAtomic(t *testing.T) { stressStamps(t, newAtomicVolume(t, fs.MinSize)) }

func stressStamps(t *testing.T, v *volume) {
	v.Unmerged = true
	const files = 6
	stop := time.Now().Add(3 * time.Second)
	if testing.Short() {
		stop = time.Now().Add(time.Second)
	}
	var inos [files]atomic.Uint64
	var wg sync.WaitGroup
	var reads, bad atomic.Int64
	name := func(i int) string { return fmt.Sprint("f", i) }
	for i := range inos {
		inos[i].Store(v.Create("/" + name(i)))
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for time.Now().Before(stop) {
			v.FS.Compact(&fs.Caller{Lane: 4})
			time.Sleep(100 * time.Microsecond)
		}
	}()
	for w := 0; w < 4; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewSource(int64(w)))
			ctx := fs.Caller{Lane: uint32(w)}
			buf := make([]byte, 64<<10)
			for time.Now().Before(stop) {
				i := rnd.Intn(files)
				var a fs.Attr
				if v.FS.Lookup(&ctx, 1, name(i), &a) != 0 {
					continue
				}
				off := int64(rnd.Intn(40)) * 8192
				switch rnd.Intn(10) {
				case 8:
					mode := []uint32{0, fs.FallocKeepSize, fs.FallocPunchHole | fs.FallocKeepSize, fs.FallocZeroRange | fs.FallocKeepSize}[rnd.Intn(4)]
					v.FS.Fallocate(&ctx, a.Ino, mode, off+int64(rnd.Intn(3))*512, int64(1+rnd.Intn(20))*2048)
				case 9:
					if rnd.Intn(3) == 0 { // in its own place, so that the stamps stay right
						v.FS.CopyRange(&ctx, a.Ino, off, a.Ino, off+int64(1+rnd.Intn(10))*65536, int64(1+rnd.Intn(16))*4096)
					} else if rnd.Intn(2) == 0 {
						v.FS.SetXattr(&ctx, a.Ino, "user.x", buf[:rnd.Intn(9000)], 0)
					} else {
						v.FS.GetXattr(&ctx, a.Ino, "user.x", buf)
					}
				case 0:
					v.FS.SetAttr(&ctx, a.Ino, &fs.SetAttr{Valid: fs.SetSize, Size: uint64(off)}, &fs.Attr{})
				case 1:
					v.renew(&ctx, name(i))
				case 2, 3, 4:
					n := (1 + rnd.Intn(len(buf)/4096)) * 4096
					stamp(buf[:n], stampOf(&a))
					v.FS.Write(&ctx, a.Ino, off, buf[:n])
				default:
					if n, e := v.foreignIn(&ctx, a.Ino, off, 64<<10, stampOf(&a)); e == 0 {
						bad.Add(n)
						reads.Add(1)
					}
				}
				v.FS.Forget(a.Ino, 1)
			}
		}()
	}
	wg.Wait()
	if bad.Load() > 0 {
		t.Fatalf("%d words of other files in %d reads", bad.Load(), reads.Load())
	}
	if reads.Load() < 100 {
		t.Fatalf("only %d reads", reads.Load())
	}
	for i := range inos {
		v.FS.Forget(inos[i].Load(), 1)
	}
	v.checked()
}

// TestWriteWhole checks that readers see a write into many holes, which takes several transactions,
// as a whole or not at all.
func TestWriteWhole(t *testing.T) {
	v := newVolume(t, 64<<20)
	const size = 1 << 20
	data := make([]byte, size)
	for i := range data {
		data[i] = 'A'
	}
	for round := range 30 {
		ino := v.Create(fmt.Sprint("/f", round))
		for off := int64(0); off < size; off += 8192 {
			v.Write(ino, off, []byte("b"))
		}
		stop := make(chan struct{})
		done := make(chan int)
		for range 2 {
			go func() {
				r := v.FS.NewPinnedRead()
				defer r.Free()
				ctx := fs.Caller{Lane: 1}
				torn := 0
				for more := true; more; {
					select {
					case <-stop:
						more = false
					default:
					}
					if v.FS.Read(&ctx, ino, 0, size, r) != 0 {
						torn++
						continue
					}
					as, total := 0, 0
					for _, s := range r.Slices() {
						for i := 1; i < len(s); i += 4096 { // not at the bytes written as "b"
							total++
							if s[i] == 'A' {
								as++
							}
						}
					}
					r.Done()
					if as != 0 && as != total {
						torn++
					}
				}
				done <- torn
			}()
		}
		v.Write(ino, 0, data)
		close(stop)
		if n := <-done + <-done; n > 0 {
			t.Fatalf("round %d: %d reads saw a part of a write", round, n)
		}
		v.Delete(fmt.Sprint("/f", round))
	}
}

// TestStressNames creates, links, renames and removes names in a few directories on many threads.
// Then the tree can be removed, and all space is free.
func TestStressNames(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.Free()
	dirs := []uint64{1, v.Mkdir("/dir0"), v.Mkdir("/dir0/dir1"), v.Mkdir("/dir0/dir1/dir2")}
	stop := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	var ops atomic.Int64
	for w := 0; w < 4; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewSource(int64(w)))
			ctx := fs.Caller{Lane: uint32(w)}
			name := func() string { return fmt.Sprint("n", rnd.Intn(20)) }
			for time.Now().Before(stop) {
				d, e := dirs[rnd.Intn(4)], dirs[rnd.Intn(4)]
				var a fs.Attr
				switch rnd.Intn(7) {
				case 0, 1:
					if v.FS.Mknod(&ctx, d, name(), syscall.S_IFREG, 0, &a) == 0 {
						v.FS.Write(&ctx, a.Ino, 0, []byte("x"))
						v.FS.Forget(a.Ino, 1)
					}
				case 2:
					if v.FS.Mkdir(&ctx, d, name(), 0o755, &a) == 0 {
						v.FS.Forget(a.Ino, 1)
					}
				case 3:
					v.FS.Unlink(&ctx, d, name())
				case 4:
					v.FS.Rmdir(&ctx, d, name())
				case 5:
					v.FS.Rename(&ctx, d, name(), e, name(), uint32(rnd.Intn(3)))
				case 6:
					if v.FS.Lookup(&ctx, d, name(), &a) == 0 {
						var b fs.Attr
						if v.FS.Link(&ctx, a.Ino, e, name(), &b) == 0 {
							v.FS.Forget(b.Ino, 1)
						}
						v.FS.Forget(a.Ino, 1)
					}
				}
				ops.Add(1)
			}
		}()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		panic("deadlock: the stack dump tells where")
	}
	if ops.Load() < 1000 {
		t.Fatalf("only %d operations", ops.Load())
	}
	for _, d := range dirs[1:] {
		v.FS.Forget(d, 1)
	}
	v.Remount()
	v.RemoveAll(1)
	if v.Free() != free {
		t.Fatalf("%d blocks free at the start, %d at the end", free, v.Free())
	}
}

// TestLargeDirectory checks that the time of a create does not depend on the directory's size.
func TestLargeDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("20 000 files are for the long run")
	}
	v := newVolume(t, 64<<20)
	free := v.Free()
	const n = 20_000
	var first, last time.Duration
	for i := 0; i < n; i++ {
		at := time.Now()
		v.FS.Forget(v.Create(fmt.Sprintf("/file-%08d", i)), 1)
		if d := time.Since(at); i < n/4 {
			first += d
		} else if i >= n*3/4 {
			last += d
		}
	}
	if last > 5*first {
		t.Errorf("the first quarter took %v, the last %v", first, last)
	}
	v.Remount()
	if got := len(v.Names(1)); got != n+2 {
		t.Fatalf("%d entries, expected %d", got, n+2)
	}
	for i := 0; i < n; i++ {
		v.Unlink(fmt.Sprintf("/file-%08d", i))
	}
	if v.Free() != free {
		t.Fatalf("%d blocks free at the start, %d at the end", free, v.Free())
	}
}
