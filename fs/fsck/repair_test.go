package fsck_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// converge repairs. If nothing is left, a check must find no problem.
func (w *world) converge() *fsck.Report {
	w.Helper()
	rep := w.check(true)
	after := w.check(false)
	w.Logf("-y: exit %d, %v", rep.ExitCode(), tail(rep.Problems))
	if rep.Left == 0 && after.ExitCode() != 0 {
		w.Errorf("-y says exit %d, nothing left; -n then finds %v", rep.ExitCode(), after.Problems)
	}
	return rep
}

func tail(p []fsck.Problem) []fsck.Problem { return p[max(0, len(p)-4):] }

// TestFound checks that damage that looks like a valid state is found.
func TestFound(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
	}{
		{"an empty root without links, after a crash", func(w *world) {
			if _, err := fs.Mkfs(w.R, options()); err != nil {
				w.Fatal(err)
			}
			w.smash(w.sb.OwnerOff)
			w.core("/", func(c *layout.Core) { c.Nlink = 0 })
		}},
		{"a link of 3 bytes with size 50", func(w *world) { w.core("/s", func(c *layout.Core) { c.Size = 50 }) }},
		{"a link of 300 bytes without a block, after a crash", func(w *world) {
			w.extent("/l", 0, func(e *layout.Extent) { *e = layout.Extent{} })
			w.smash(w.sb.OwnerOff)
		}},
		{"an inline link with extent blocks", func(w *world) {
			w.times("/s", func(x *layout.Times) { x.ExtentRoot = uint64(w.sb.InodeBase >> 12) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := build(t)
			c.do(w)
			if rep := w.check(false); rep.ExitCode() == 0 {
				t.Errorf("-n calls it clean: %+v", rep)
			}
		})
	}
}

// TestConverge checks that one repair is enough, and keeps the files.
func TestConverge(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
	}{
		{"the root without links is no orphan", func(w *world) { w.core("/", func(c *layout.Core) { c.Nlink = 0 }) }},
		{"a named file without links is no orphan", func(w *world) { w.core("/f", func(c *layout.Core) { c.Nlink = 0 }) }},
		{"attributes without their times line", func(w *world) { w.smash(w.inode("/d/g") + layout.InodeTimesOff) }},
		{"attributes keep the generation of a lost core line", func(w *world) { w.smash(w.inode("/d/g")) }},
		{"of two names of a directory its parent has the right one", func(w *world) {
			w.edit(w.dentry("/", "p"), func(l *layout.Line) { l.PutDentryHead([]byte("p"), w.ino["/d/sub"], syscall.DT_DIR) })
			delete(w.ino, "/p")
		}},
		{"an inline link survives its core line", func(w *world) {
			w.mounted(func() { w.symlink("/s2", strings.Repeat("y", 30)) })
			w.smash(w.inode("/s2"))
		}},
		{"the name in lost+found is taken", func(w *world) {
			w.mounted(func() {
				w.mkdir("/lost+found")
				w.file(fmt.Sprintf("/lost+found/#%d", w.ino["/d/g"]), 5)
			})
			w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l.ClearDentry() })
			delete(w.ino, "/d/g")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := build(t)
			c.do(w)
			if rep := w.converge(); rep.ExitCode() != 1 {
				t.Errorf("exit %d: %v", rep.ExitCode(), rep.Problems)
			}
			w.verify("")
		})
	}
}

// TestDeepDamage repairs damaged directories below each other, each of which takes a pass.
func TestDeepDamage(t *testing.T) {
	for n := 12; n <= 20; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := build(t)
			var ps []string
			w.mounted(func() {
				p := ""
				for i := range n {
					p += fmt.Sprintf("/x%d", i)
					w.mkdir(p)
					ps = append(ps, p)
				}
				w.file(p+"/leaf", 10)
			})
			for _, p := range ps {
				w.smash(w.inode(p))
			}
			rep := w.converge()
			if rep.ExitCode() != 1 {
				t.Errorf("exit %d", rep.ExitCode())
			}
		})
	}
}

// TestOlderBackup checks that the second superblock of an older filesystem is not used.
func TestOlderBackup(t *testing.T) {
	r := fstest.Memory(t, 4*size)
	o := options()
	for i, n := range []int64{3 * size, size} {
		o.UUID, o.Size = [16]byte{byte(7 + i)}, n
		if _, err := fs.Mkfs(r, o); err != nil {
			t.Fatal(err)
		}
	}
	before := bytes.Clone(r.Bytes(0, size))
	if err := r.Store(0, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	rep, err := fsck.Check(r, fsck.Options{Repair: true})
	if err != nil || rep.Left > 0 {
		t.Errorf("not repaired: %v; %d left, first %v", err, rep.Left, rep.Problems[:3])
	}
	if !bytes.Equal(before[:512], r.Bytes(0, 512)) {
		t.Error("the first superblock is now that of the old filesystem")
	}
}

// TestModeOfNoType checks that a core line with an impossible type keeps its other fields.
func TestModeOfNoType(t *testing.T) {
	w := build(t)
	w.core("/f", func(c *layout.Core) { c.UID, c.Mode = 1000, 0o644 })
	w.converge()
	w.core("/f", func(c *layout.Core) {
		if c.UID != 1000 || c.Size != 10000 {
			t.Errorf("uid %d size %d, were 1000 and 10000", c.UID, c.Size)
		}
	})
}

// TestHeaderOfData checks that a chunk that was metadata, and is data now, stays data when the
// chunk map is lost.
func TestHeaderOfData(t *testing.T) {
	w := build(t)
	// An unwritten extent over a chunk whose first block still has a header.
	w.mounted(func() {
		for i := range 3000 {
			w.file(fmt.Sprintf("/z%d", i), 0)
		}
	})
	rep := w.check(false)
	w.Logf("metadata chunks %d", rep.MetaChunks)
	var metas []int64
	for no := w.sb.FirstChunk(); no < w.sb.Chunks(); no++ {
		var l layout.Line
		off := w.sb.ChunkHeader(no)
		w.R.LoadLine(off, (*[64]byte)(&l))
		if l.Valid(w.seed, off) && l.IsChunkHeader(no) {
			metas = append(metas, no)
		}
	}
	w.mounted(func() {
		for i := range 3000 {
			w.Unlink(fmt.Sprintf("/z%d", i))
			delete(w.ino, fmt.Sprintf("/z%d", i))
		}
	})
	w.mounted(func() {})
	rep = w.check(false)
	w.Logf("metadata chunks %d after, had headers %v", rep.MetaChunks, metas)
	w.mounted(func() {
		w.file("/big", 0)
		n := int64(13 << 20)
		w.Fallocate(w.ino["/big"], 0, 0, n)
		for ; w.FS.Fallocate(&w.Ctx, w.ino["/big"], 0, n, 32<<10) == 0; n += 32 << 10 {
		}
		// Write all blocks except the first of each chunk, from the end, until no extent slot is
		// free.
		for at := n - 32<<10; at >= 0; at -= 32 << 10 {
			if _, e := w.FS.Write(&w.Ctx, w.ino["/big"], at+4096, bytes.Repeat([]byte("B"), 28<<10)); e != 0 {
				w.Logf("written from %d of %d on: %v", at, n, e)
				break
			}
		}
	})
	count := func() (n int) {
		w.mounted(func() { n = bytes.Count(content(w.FS, w.ino["/big"]), []byte("B")) })
		return
	}
	had := count()
	rep = w.check(false)
	if rep.ExitCode() != 0 {
		t.Fatal(rep.Problems)
	}
	stale := 0
	for _, no := range metas {
		var l, m layout.Line
		off := w.sb.ChunkHeader(no)
		w.R.LoadLine(off, (*[64]byte)(&l))
		ln, bit := layout.ChunkMapPos(no)
		w.R.LoadLine(w.sb.ChunkMapOff+ln*64, (*[64]byte)(&m))
		if l.Valid(w.seed, off) && l.IsChunkHeader(no) && !m.ChunkBit(bit) {
			stale++
		}
	}
	w.Logf("stale headers: %d; data blocks %d", stale, rep.DataBlocks)
	w.smash(w.sb.ChunkMapOff)
	y := w.converge()
	if y.DataBlocks != rep.DataBlocks {
		t.Errorf("%d data blocks before, %d after: exit %d", rep.DataBlocks, y.DataBlocks, y.ExitCode())
	}
	if n := count(); n != had {
		t.Errorf("%d bytes of /big were written, %d are left", had, n)
	}
}

// TestAttributesLikeInodes checks that attributes that look like inodes, as users may choose, are
// not taken for inodes.
func TestAttributesLikeInodes(t *testing.T) {
	w := build(t)
	// The list that makes all lines at multiples of 4 look like core lines.
	part := make([]byte, layout.XattrBlockBytes)
	put := func(l *layout.Line, at int) {
		copy(part[at:], l.Payload())
	}
	for s := 1; s < 16; s++ {
		var l layout.Line
		(&layout.Core{Mode: syscall.S_IFREG | 0o4777, Nlink: 1, Gen: 1}).Put(&l)
		put(&l, (4*s-1)*layout.PayloadSize)
	}
	var forged uint64
	w.mounted(func() {
		w.file("/evil", 1)
		// Entries of 12+n+len bytes: 3 values of about 1000 bytes, and one for the rest.
		at := 0
		for i := range 4 {
			name := fmt.Sprintf("user.%d", i)
			n := min(1024, len(part)-at-12-len(name))
			from := at + 12 + len(name)
			w.SetXattr(w.ino["/evil"], name, part[from:from+n])
			at = from + n
		}
		w.Logf("%d bytes of %d", at, len(part))
	})
	if rep := w.check(false); rep.ExitCode() != 0 {
		t.Fatal(rep.Problems)
	}
	root := w.xattrRoot("/evil")
	forged = w.sb.InodeAt(int64(root) << 12)
	start := root &^ uint64(w.sb.ChunkBlocks()-1)
	line, _ := layout.TypePos(int(root - start))
	no := int64(root) / int64(w.sb.ChunkBlocks())
	w.smash(w.sb.ChunkHeader(no) + int64(line)*64)
	rep := w.converge()
	for _, p := range rep.Problems {
		if p.Ino >= forged && p.Ino < forged+16 {
			w.Logf("%v", p)
		}
	}
	w.mounted(func() {
		var lf, a fs.Attr
		if w.FS.Lookup(&w.Ctx, 1, "lost+found", &lf) == 0 {
			for i := range uint64(16) {
				if w.FS.Lookup(&w.Ctx, lf.Ino, fmt.Sprintf("#%d", forged+i), &a) == 0 {
					t.Errorf("forged inode %d of mode %#o uid %d is in lost+found", forged+i, a.Mode, a.UID)
				}
			}
		}
		buf := make([]byte, 2000)
		if n, e := w.FS.GetXattr(&w.Ctx, w.ino["/evil"], "user.0", buf); e != 0 {
			t.Errorf("attributes are gone: %d %v", n, e)
		}
	})
}

// TestOlderChain checks that stale extent blocks are not taken for current ones.
func TestOlderChain(t *testing.T) {
	w := build(t)
	w.mounted(func() {
		w.file("/c", 1)
		for i := 1; i < 200; i++ {
			w.write("/c", int64(i)*8192, 1)
		}
	})
	w.mounted(func() {
		w.Truncate(w.ino["/c"], 4096)
		w.file("/other", 1000000)
	})
	if rep := w.check(false); rep.ExitCode() != 0 {
		t.Fatal(rep.Problems)
	}
	w.smash(w.inode("/c") + layout.InodeTimesOff)
	rep := w.converge()
	if rep.ExitCode() != 1 {
		t.Errorf("exit %d", rep.ExitCode())
	}
}
