package fs_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// spoil makes stores to bytes [off, off+n) of the region file fault, as memory that cannot be
// written. With PROT_NONE loads fault too.
func spoil(t *testing.T, path string, off, n int64, prot uintptr) {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := false
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) < 6 || w[5] != path {
			continue
		}
		var lo, hi uintptr
		var at int64
		fmt.Sscanf(w[0], "%x-%x", &lo, &hi)
		fmt.Sscanf(w[2], "%x", &at)
		if off < at || off+n > at+int64(hi-lo) {
			continue
		}
		if _, _, e := syscall.Syscall(syscall.SYS_MPROTECT, lo+uintptr(off-at), uintptr(n), prot); e != 0 {
			t.Fatal(e)
		}
		done = true
	}
	if !done {
		t.Fatal("no mapping found")
	}
}

// fileVolume returns a volume on a region file, and the file's path.
func fileVolume(t *testing.T, atomic bool) (*volume, string) {
	path := filepath.Join(t.TempDir(), "region")
	if err := pmem.Create(path, 64<<20, false); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return &volume{fstest.Format(t, r, fstest.Small, fs.Options{Atomic: atomic})}, path
}

// TestPoisonedData checks that a file block that cannot be written fails only the writes to it, not
// the filesystem or its next mount.
func TestPoisonedData(t *testing.T) {
	for _, logged := range []bool{false, true} {
		t.Run(fmt.Sprint("atomic=", logged), func(t *testing.T) {
			v, path := fileVolume(t, logged)
			ino, other := v.Create("/f"), v.Create("/other")
			const bad, size = 2 << 20, 2<<20 + 6000
			v.Write(ino, 0, make([]byte, size))
			v.Write(other, 0, make([]byte, 4096))
			at := int64(v.Extents(ino)[0].Block)<<12 + bad
			spoil(t, path, at, 4096, syscall.PROT_READ)
			if n, e := v.FS.Write(&v.Ctx, ino, bad+100, []byte("hello")); n != 0 || e != syscall.EIO {
				t.Errorf("write to the bad block: %d, %v", n, e)
			}
			long := bytes.Repeat([]byte("x"), 20000) // before, in and after the bad block, and beyond the end of file
			if _, e := v.FS.Write(&v.Ctx, ino, bad-4096, long); e != syscall.EIO {
				t.Errorf("write that needs the bad block: %v", e)
			}
			if n, e := v.FS.Write(&v.Ctx, other, 0, []byte("hello")); n != 5 || e != 0 {
				t.Errorf("write to another file: %d, %v", n, e)
			}
			v.Write(ino, 0, []byte("hello"))
			v.Crash()
			v.Mount()
			if got := v.Read(ino, 0, 5); string(got) != "hello" {
				t.Errorf("read %q", got)
			}
			if got := v.Read(ino, bad, 4096); !bytes.Equal(got, make([]byte, 4096)) {
				t.Error("the bad block changed")
			}
			v.Unmount()
			v.Check()
		})
	}
}

// fragmented returns a volume in which the file /f has 200 extents with holes between them, and an
// unreadable second extent block.
func fragmented(t *testing.T) (v *volume, ino uint64) {
	v, path := fileVolume(t, false)
	ino = v.Create("/f")
	for i := range int64(200) {
		v.Write(ino, i*8192, bytes.Repeat([]byte{7}, 4096))
	}
	for i := range 4 { // so that no record of the journal is of the second extent block
		v.Write(v.Create(fmt.Sprint("/", i)), 0, make([]byte, 100))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(len(data)) - layout.BlockSize; off > 0; off -= layout.BlockSize { // the journal comes last
		line := layout.Line(data[off : off+layout.LineSize])
		var head layout.ExtentBlock
		if head.Get(&line) && head.Owner == ino && head.Index == 1 {
			spoil(t, path, off, layout.BlockSize, syscall.PROT_NONE)
			return v, ino
		}
	}
	t.Fatal("the file has no second extent block")
	return nil, 0
}

// TestTruncateFails checks that a file does not grow again after a truncation that the media let
// finish only in part: what was cut off would be seen again. A new truncation is possible.
func TestTruncateFails(t *testing.T) {
	v, ino := fragmented(t)
	resize := func(n uint64) syscall.Errno {
		return v.FS.SetAttr(&v.Ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: n}, &fs.Attr{})
	}
	if e := resize(0); e != syscall.EIO || v.Stat(ino).Size != 0 || len(v.Extents(ino)) == 0 {
		t.Fatalf("truncate to 0: %v, size %d, %d extents", e, v.Stat(ino).Size, len(v.Extents(ino)))
	}
	if e := resize(1 << 20); e != syscall.EIO {
		t.Errorf("truncate to 1 MiB: %v", e)
	}
	if n, e := v.FS.Write(&v.Ctx, ino, 1<<20, make([]byte, 10)); e != syscall.EIO {
		t.Errorf("write at 1 MiB: %d, %v", n, e)
	}
	if e := v.FS.Fallocate(&v.Ctx, ino, 0, 0, 1<<20); e != syscall.EIO {
		t.Errorf("fallocate: %v", e)
	}
	if e := resize(0); e != syscall.EIO || v.Stat(ino).Size != 0 {
		t.Errorf("truncate to 0 again: %v, size %d", e, v.Stat(ino).Size)
	}
}

// TestAbortBesideReader checks that blocks of a change that fails are freed once, although readers
// that looked up former extents have references to them.
func TestAbortBesideReader(t *testing.T) {
	v, ino := fragmented(t)
	table := v.FS.Table()
	all := v.Extents(ino)
	next := all[len(all)-1].Block + 1 // about where the next block is allocated
	var caught atomic.Int64
	meanwhile(t, func(int) bool {
		for b := next; b < next+16; b++ {
			if table.Shares(b) != 0 {
				continue
			}
			for range 200 {
				ref, ok := table.TryGet(b, 1)
				if !ok {
					continue
				}
				for range 1000 {
					if table.Shares(b) == 0 { // the change has failed
						caught.Add(1)
						break
					}
				}
				table.Put(ref, v.FS.FreeIdle)
			}
		}
		return true
	})
	ctx, free := &fs.Caller{Lane: 3}, v.Free()
	for end := time.Now().Add(20 * time.Second); caught.Load() < 3 && time.Now().Before(end); {
		if n, e := v.FS.Write(ctx, ino, 199*8192+4096+8192, make([]byte, 4096)); e != syscall.EIO {
			t.Fatalf("write that needs a slot in the bad block: %d, %v", n, e)
		}
		if now := v.Free(); now > free {
			t.Fatalf("%d blocks are free, more than before: %d", now, free)
		}
	}
	if caught.Load() == 0 {
		t.Error("no reference was held when a change failed")
	}
}

// TestPoisonedReplay checks that mount and fsck -y finish a committed write as far as possible if
// one of its blocks cannot be written, or its data cannot be read.
func TestPoisonedReplay(t *testing.T) {
	for _, body := range []bool{false, true} {
		for _, repair := range []bool{false, true} {
			t.Run(fmt.Sprintf("body=%v,fsck=%v", body, repair), func(t *testing.T) {
				v, path := fileVolume(t, true)
				ino := v.Create("/f")
				v.Write(ino, 0, bytes.Repeat([]byte{1}, 3<<20))
				cut := &committed{v: v, headers: headers{sb: v.Super()}}
				v.R.SetRecorder(cut)
				v.Write(ino, 8192, bytes.Repeat([]byte{2}, 40000))
				v.R.SetRecorder(nil)
				v.Crash()
				put(t, v.R, 0, cut.img)
				h := cut.logged[0]
				if body {
					spoil(t, path, (h.At+int64(layout.TablesSize(int(h.N), int(h.Pieces)))+4095)&^4095, 8192, syscall.PROT_NONE)
				} else {
					spoil(t, path, cut.place+4096, 4096, syscall.PROT_READ)
				}
				if repair {
					rep, err := fsck.Check(v.R, fsck.Options{Repair: true})
					if err != nil || rep.Left > 0 || len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.Media {
						t.Fatalf("fsck -y: %v, %+v", err, rep)
					}
				}
				var warned []string
				v.MountWith(fs.Options{Warn: func(m string) { warned = append(warned, m) }})
				want := 1
				switch {
				case repair:
					want = 0
				case body: // the record's body is in bad memory too
					want = 2
				}
				if len(warned) != want {
					t.Errorf("warned of %q, want %d", warned, want)
				}
				v.Write(ino, 0, []byte("hello"))
				v.Crash()
				v.Mount()
				v.Unmount()
			})
		}
	}
}

// committed copies the region when the first logged record is committed.
type committed struct {
	headers
	v     *volume
	place int64 // region offset of the data
	img   []byte
}

// NTStore is called before the store.
func (c *committed) NTStore(tid int, off int64, b []byte) {
	if len(c.logged) > 0 {
		if c.img == nil {
			c.img, c.place = bytes.Clone(c.v.R.Bytes(0, c.sb.Size)), off
		}
		return
	}
	c.headers.NTStore(tid, off, b)
}

// TestPoisonedStage checks that free space that cannot be written fails at most the atomic writes
// that are staged there, each block only once. Without other space atomic writes fail, and
// everything else works.
func TestPoisonedStage(t *testing.T) {
	v, path := fileVolume(t, true)
	ino := v.Create("/f")
	v.Write(ino, 0, make([]byte, 1<<20))
	rec := &headers{sb: v.Super()}
	v.R.SetRecorder(rec)
	v.Write(ino, 0, make([]byte, 500))
	v.Write(ino, 0, make([]byte, 500_000))
	v.R.SetRecorder(nil)
	write := func(n int, want syscall.Errno) {
		t.Helper()
		if got, e := v.FS.Write(&v.Ctx, ino, 0, make([]byte, n)); e != want || e == 0 && got != n {
			t.Errorf("write of %d bytes: %d, %v, expected %v", n, got, e, want)
		}
	}
	spoil(t, path, rec.logged[0].At, 4096, syscall.PROT_READ)
	write(500, syscall.EIO)
	write(500, 0)
	write(500_000, 0)
	spoil(t, path, rec.logged[1].At, 4096, syscall.PROT_READ)
	write(500_000, syscall.EIO)
	write(500_000, syscall.EIO)
	write(500, syscall.EIO)
	v.Write(ino, 1<<20, make([]byte, 5000)) // allocates new blocks
	v.Delete("/f")
	for _, h := range rec.logged { // makes them writable, as place for the free map
		spoil(t, path, h.At, 4096, syscall.PROT_READ|syscall.PROT_WRITE)
	}
	v.Unmount()
	if v.owner().State != layout.OwnerSaved {
		t.Error("no free map was saved")
	}
	v.Check()
}
