package fsck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
)

func TestClean(t *testing.T) {
	w := build(t)
	before := bytes.Clone(w.R.Bytes(0, size))
	rep := w.check(false)
	if len(rep.Problems) != 0 || rep.ExitCode() != 0 || !rep.Clean {
		t.Fatalf("%+v", rep)
	}
	if rep.Files != 4 || rep.Dirs != 3 || rep.Symlinks != 2 || rep.Special != 1 || rep.ExtentBlocks != 1 || rep.XattrBlocks != 1 {
		t.Errorf("counts: %+v", rep)
	}
	if !bytes.Equal(before, w.R.Bytes(0, size)) {
		t.Error("a check wrote to the region")
	}
	w.mounted(func() {
		if free := w.Free(); free != rep.FreeBlocks {
			t.Errorf("free blocks %d, statfs says %d", rep.FreeBlocks, free)
		}
	})
	rep = w.check(true)
	if rep.ExitCode() != 0 || len(rep.Problems) != 0 {
		t.Errorf("repair of a sound filesystem: %+v", rep)
	}
}

// damages are kinds of damage, the codes that a check reports for them (and those that the repair
// of others uncovers), and the result of a repair.
var damages = []struct {
	name  string
	do    func(w *world)
	codes string // separated by spaces
	exit  int    // exit code of the repair
	gone  string // paths that a repair cannot save
}{
	{"first superblock", func(w *world) { w.Store(100, []byte{1, 2, 3}) }, fsck.SuperPrimary, 1, ""},
	{"second superblock", func(w *world) { w.Store(w.sb.BackupOff, make([]byte, 8)) }, fsck.SuperBackup, 1, ""},
	{"superblocks differ", func(w *world) {
		s := *w.sb
		s.Label = "other"
		w.Store(w.sb.BackupOff, s.Encode())
	}, fsck.SuperDiffer, 1, ""},
	{"owner state", func(w *world) {
		w.edit(w.sb.OwnerOff, func(l *layout.Line) { (&layout.Owner{State: 9}).Put(l) })
	}, fsck.OwnerState, 1, ""},
	{"bad list line", func(w *world) { w.smash(w.sb.BadOff + 640) }, fsck.BadList, 1, ""},
	{"bad list range", func(w *world) {
		w.edit(w.sb.BadOff, func(l *layout.Line) { (&layout.BadRange{Block: 1, Len: 1 << 60}).Put(l) })
	}, fsck.BadList, 1, ""},
	{"chunk map line", func(w *world) { w.smash(w.sb.ChunkMapOff) }, fsck.ChunkMap, 1, ""},
	{"first chunk's bit", func(w *world) {
		line, bit := layout.ChunkMapPos(w.sb.FirstChunk())
		w.edit(w.sb.ChunkMapOff+line*64, func(l *layout.Line) { l.SetChunkBit(bit, false) })
	}, fsck.ChunkMapBit, 1, ""},
	{"bit beyond the end", func(w *world) {
		line, bit := layout.ChunkMapPos(w.sb.Chunks())
		w.edit(w.sb.ChunkMapOff+line*64, func(l *layout.Line) { l.SetChunkBit(bit, true) })
	}, fsck.ChunkMapBit, 1, ""},
	{"chunk header", func(w *world) { w.smash(w.sb.StaticEnd) }, fsck.ChunkHeader, 1, ""},
	{"chunk header's number", func(w *world) {
		w.edit(w.sb.StaticEnd, func(l *layout.Line) { l.SetChunkHeader(99) })
	}, fsck.ChunkHeader, 1, ""},
	{"chunk types", func(w *world) { w.smash(w.sb.StaticEnd + 64) }, fsck.ChunkTypes, 1, ""},
	{"unknown block type", func(w *world) {
		line, i := layout.TypePos(int(w.sb.InodeBase>>12) & (w.sb.ChunkBlocks() - 1))
		w.edit(w.sb.StaticEnd+int64(line)*64, func(l *layout.Line) { l.SetBlockType(i, 7) })
	}, fsck.ChunkType, 1, ""},
	{"core line", func(w *world) { w.smash(w.inode("/f")) }, fsck.InodeCore, 1, ""},
	{"core line of a directory", func(w *world) { w.smash(w.inode("/d")) }, fsck.InodeCore + " " + fsck.Nlink, 1, ""},
	{"core line of the root", func(w *world) { w.smash(w.inode("/")) }, fsck.InodeCore + " " + fsck.Nlink, 1, ""},
	{"core line of a free slot", func(w *world) { w.smash(w.sb.InodeOff(16)) }, fsck.InodeCore, 1, ""},
	{"times line of a free slot", func(w *world) { w.smash(w.sb.InodeOff(16) + layout.InodeTimesOff) }, fsck.InodeFree, 1, ""},
	{"core line of a link", func(w *world) { w.smash(w.inode("/s")) }, fsck.InodeCore, 1, ""},
	{"times line", func(w *world) { w.smash(w.inode("/f") + layout.InodeTimesOff) }, fsck.InodeTimes, 1, ""},
	{"times line with an extent block", func(w *world) { w.smash(w.inode("/frag") + layout.InodeTimesOff) }, fsck.InodeTimes, 1, ""},
	{"extent line", func(w *world) { w.smash(w.inode("/f") + layout.InodeExtentOff) }, fsck.InodeExtents, 1, "content of /f"},
	{"extent line of a link", func(w *world) { w.smash(w.inode("/s") + layout.InodeExtentOff) }, fsck.DentryDead + " " + fsck.InodeExtents + " " + fsck.InodeFree, 1, "/s"},
	{"extent line of a directory", func(w *world) { w.smash(w.inode("/d") + layout.InodeExtentOff) }, fsck.InodeExtents + " " + fsck.Nlink + " " + fsck.Unreachable, 1, "/d/g /d/sub /d/sub/deep /d/two"},
	{"live line", func(w *world) { w.smash(w.inode("/f") + layout.InodeLiveOff) }, "", 0, ""},
	{"mode", func(w *world) { w.core("/f", func(c *layout.Core) { c.Mode = 0o7644 }) }, fsck.InodeMode, 1, ""},
	{"format flags", func(w *world) { w.core("/f", func(c *layout.Core) { c.Format = 0x80 }) }, fsck.InodeFormat, 1, ""},
	{"directory's size", func(w *world) { w.core("/d", func(c *layout.Core) { c.Size = 5000 }) }, fsck.InodeSizeBad, 1, ""},
	{"size beyond all", func(w *world) { w.core("/f", func(c *layout.Core) { c.Size = 1<<63 - 1 }) }, fsck.InodeSizeBad, 1, ""},
	{"fifo's size", func(w *world) { w.core("/p", func(c *layout.Core) { c.Size = 1 }) }, fsck.InodeSizeBad, 1, ""},
	{"attributes elsewhere", func(w *world) { w.times("/f", func(t *layout.Times) { t.XattrRoot = 5 }) }, fsck.InodeXattr, 1, ""},
	{"attributes of another", func(w *world) { w.times("/f", func(t *layout.Times) { t.XattrRoot = w.xattrRoot("/d/g") }) }, fsck.InodeXattr, 1, ""},
	{"attributes' header", func(w *world) { w.smash(int64(w.xattrRoot("/d/g")) << 12) }, fsck.InodeXattr, 1, "xattrs"},
	{"attributes' list", func(w *world) { w.smash(int64(w.xattrRoot("/d/g"))<<12 + 64) }, fsck.InodeXattr, 1, "xattrs"},
	{"attributes without end", func(w *world) {
		w.xattrHeader("/d/g", func(h *layout.XattrBlock) { h.Next = w.xattrRoot("/d/g") })
	}, fsck.InodeXattr, 1, "xattrs"},
	{"attributes cut short", func(w *world) { w.xattrHeader("/d/g", func(h *layout.XattrBlock) { h.Bytes -= 5 }) }, fsck.InodeXattr, 1, "xattrs"},
	{"attribute value in a file", func(w *world) {
		b := w.slot("/f", 0).Block
		at := int64(w.xattrRoot("/d/g")) << 12
		w.edit(at+64, func(l *layout.Line) { // "user.short", "value", then "user.long" and its run
			binary.LittleEndian.PutUint32(l.Payload()[12+10+5+12+9:], uint32(b))
		})
	}, fsck.InodeXattr, 1, "xattrs"},
	{"root is a file", func(w *world) { w.core("/", func(c *layout.Core) { c.Mode = syscall.S_IFREG }) }, fsck.ExtentMetadata + " " + fsck.InodeRoot, 5, "mount"},
	{"truncating on a clean one", func(w *world) {
		w.core("/f", func(c *layout.Core) { c.Size, c.Format = 10, layout.FormatTruncating })
	}, fsck.Truncating, 1, "content of /f"},
	{"extent chain", func(w *world) {
		w.times("/frag", func(t *layout.Times) { t.ExtentRoot = uint64(w.sb.StaticEnd >> 12) })
	}, fsck.ExtentChain, 1, ""},
	{"extent chain that loops", func(w *world) {
		var l layout.Line
		w.R.LoadLine(w.inode("/frag")+layout.InodeTimesOff, (*[64]byte)(&l))
		var t layout.Times
		t.Get(&l)
		w.edit(int64(t.ExtentRoot)<<12, func(l *layout.Line) {
			var h layout.ExtentBlock
			h.Get(l)
			h.Index, h.Next = 1, t.ExtentRoot
			h.Put(l)
		})
	}, fsck.ExtentChain, 4, "mount"},
	{"extent out of range", func(w *world) { w.extent("/f", 0, func(e *layout.Extent) { e.Block = 1 << 50 }) }, fsck.ExtentRange, 1, "content of /f"},
	{"extent of another device", func(w *world) { w.extent("/f", 0, func(e *layout.Extent) { e.Dev = 1 }) }, fsck.ExtentRange, 1, "content of /f"},
	{"extent in the fixed area", func(w *world) { w.extent("/f", 0, func(e *layout.Extent) { e.Block = 1 }) }, fsck.ExtentRange, 1, "content of /f"},
	{"extents overlap", func(w *world) {
		w.extent("/frag", 1, func(e *layout.Extent) { e.Logical = 0 })
	}, fsck.ExtentOverlap, 4, "mount"},
	{"block claimed twice", func(w *world) {
		b := w.slot("/f", 0).Block
		w.extent("/d/g", 0, func(e *layout.Extent) { e.Block = b })
	}, fsck.ExtentShared, 4, "mount"},
	{"block claimed twice, one of them shares it", func(w *world) {
		b := w.slot("/f", 0).Block
		w.extent("/d/g", 0, func(e *layout.Extent) { e.Block, e.Flags = b, layout.ExtentShared })
	}, fsck.ExtentShared, 4, "mount"},
	{"second superblock's block", func(w *world) {
		w.extent("/d/g", 0, func(e *layout.Extent) { e.Block = uint64(w.sb.BackupOff >> 12) })
	}, fsck.ExtentReserved, 1, "content of /d/g"},
	{"data in a metadata chunk", func(w *world) {
		w.extent("/d/g", 0, func(e *layout.Extent) { e.Block = uint64(w.sb.InodeBase>>12) + 3 })
	}, fsck.ExtentMetadata, 1, "content of /d/g"},
	{"directory block elsewhere", func(w *world) {
		w.extent("/d/sub", 0, func(e *layout.Extent) { e.Block = 2000 })
	}, fsck.ExtentDir, 4, "mount"},
	{"blocks beyond the end", func(w *world) { w.core("/f", func(c *layout.Core) { c.Size = 5000 }) }, fsck.ExtentEOF, 1, "content of /f"},
	{"directory line", func(w *world) { w.smash(w.dentry("/d", "g")) }, fsck.DirLine + " " + fsck.Unreachable, 1, "/d/g"},
	{"dentry kind", func(w *world) {
		w.edit(w.dentry("/d", "g")+40*64, func(l *layout.Line) { l[layout.PayloadOff] = 9 })
	}, fsck.DentrySyntax, 1, ""},
	{"dentry without a name", func(w *world) {
		w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l[layout.PayloadOff+2] = 0 })
	}, fsck.DentrySyntax + " " + fsck.Unreachable, 1, "/d/g"},
	{"dentry without its end", func(w *world) {
		w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l[layout.PayloadOff+2] = 200 })
	}, fsck.DentrySyntax + " " + fsck.Unreachable, 1, "/d/g"},
	{"slash in a name", func(w *world) {
		w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l[layout.PayloadOff+12] = '/' })
	}, fsck.DentryName + " " + fsck.Unreachable, 1, "/d/g"},
	{"name twice", func(w *world) {
		w.edit(w.dentry("/d", "two"), func(l *layout.Line) { l.PutDentryHead([]byte("g"), w.ino["/f"], syscall.DT_REG) })
	}, fsck.DentryDup + " " + fsck.Nlink, 1, "/d/two"},
	{"dead inode", func(w *world) {
		w.edit(w.dentry("/d", "two"), func(l *layout.Line) { l.SetDentryTarget(16, syscall.DT_REG) })
		w.core("/f", func(c *layout.Core) { c.Nlink = 1 })
	}, fsck.DentryDead, 1, "/d/two"},
	{"inode number from nowhere", func(w *world) {
		w.edit(w.dentry("/d", "two"), func(l *layout.Line) { l.SetDentryTarget(1<<40, syscall.DT_REG) })
		w.core("/f", func(c *layout.Core) { c.Nlink = 1 })
	}, fsck.DentryDead, 1, "/d/two"},
	{"dentry's type", func(w *world) {
		w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l.SetDentryTarget(w.ino["/d/g"], syscall.DT_CHR) })
	}, fsck.DentryType, 1, ""},
	{"directory with two names", func(w *world) {
		w.edit(w.dentry("/d", "two"), func(l *layout.Line) { l.SetDentryTarget(w.ino["/d/sub"], syscall.DT_DIR) })
		w.core("/f", func(c *layout.Core) { c.Nlink = 1 })
	}, fsck.DirParents, 1, "/d/two"},
	{"parent", func(w *world) { w.core("/d/sub", func(c *layout.Core) { c.Parent = 1 }) }, fsck.DirParent, 1, ""},
	{"cycle", func(w *world) {
		// /d has a name in /d/sub only.
		w.edit(w.dentry("/", "d"), func(l *layout.Line) { l.ClearDentry() })
		w.edit(w.dentry("/d/sub", "deep"), func(l *layout.Line) { l.PutDentryHead([]byte("d"), w.ino["/d"], syscall.DT_DIR) })
		w.core("/", func(c *layout.Core) { c.Nlink-- })
		w.core("/d/sub", func(c *layout.Core) { c.Nlink++ })
		w.core("/d", func(c *layout.Core) { c.Parent = w.ino["/d/sub"] })
	}, fsck.DirCycle + " " + fsck.Nlink + " " + fsck.Unreachable, 1, "/d /d/g /d/sub /d/sub/deep /d/two"},
	{"unreachable file", func(w *world) {
		w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l.ClearDentry() })
	}, fsck.Unreachable, 1, "/d/g"},
	{"unreachable directory", func(w *world) {
		w.edit(w.dentry("/d", "sub"), func(l *layout.Line) { l.ClearDentry() })
		w.core("/d", func(c *layout.Core) { c.Nlink-- })
	}, fsck.Nlink + " " + fsck.Unreachable, 1, "/d/sub /d/sub/deep"},
	{"link count", func(w *world) { w.core("/f", func(c *layout.Core) { c.Nlink = 5 }) }, fsck.Nlink, 1, ""},
	{"directory's link count", func(w *world) { w.core("/d", func(c *layout.Core) { c.Nlink = 9 }) }, fsck.Nlink, 1, ""},
	{"orphan on a clean one", func(w *world) {
		w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l.ClearDentry() })
		w.core("/d/g", func(c *layout.Core) { c.Nlink = 0 })
	}, fsck.Orphan, 1, "/d/g"},
}

func TestDamage(t *testing.T) {
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			w := build(t)
			d.do(w)
			before := bytes.Clone(w.R.Bytes(0, size))
			rep := w.check(false)
			if got := strings.Join(codes(rep), " "); got != d.codes {
				t.Errorf("check says %q, expected %q: %v", got, d.codes, rep.Problems)
			}
			if want := map[bool]int{true: 0, false: 4}[d.codes == ""]; rep.ExitCode() != want {
				t.Errorf("exit code %d, expected %d", rep.ExitCode(), want)
			}
			if !bytes.Equal(before, w.R.Bytes(0, size)) {
				t.Error("a check wrote to the region")
			}
			rep = w.check(true)
			if rep.ExitCode() != d.exit {
				t.Errorf("exit code of the repair is %d, expected %d: %v", rep.ExitCode(), d.exit, rep.Problems)
			}
			if d.exit&4 != 0 {
				return
			}
			if rep := w.check(false); len(rep.Problems) > 0 {
				t.Fatalf("after the repair: %v", rep.Problems)
			}
			w.verify(d.gone)
		})
	}
}

// TestLostFound checks that files without a name get one, and keep their content.
func TestLostFound(t *testing.T) {
	w := build(t)
	w.edit(w.dentry("/d", "g"), func(l *layout.Line) { l.ClearDentry() })
	w.edit(w.dentry("/d", "sub"), func(l *layout.Line) { l.ClearDentry() })
	rep := w.check(true)
	if rep.ExitCode() != 1 {
		t.Fatalf("%+v", rep)
	}
	w.mounted(func() {
		if a := w.Stat(w.Ino(fmt.Sprintf("/lost+found/#%d", w.ino["/d/g"]))); a.Size != 100 || a.Nlink != 1 {
			t.Errorf("%+v", a)
		}
		w.Ino(fmt.Sprintf("/lost+found/#%d/deep", w.ino["/d/sub"]))
	})
}

// TestLostFoundFull checks that lost+found is made and filled even if no inode slot, directory
// line, extent slot or metadata block is free.
func TestLostFoundFull(t *testing.T) {
	w := build(t)
	empty := func() {
		for path := range w.ino {
			if path != "/" {
				delete(w.ino, path)
			}
		}
		if _, err := fs.Mkfs(w.R, options()); err != nil {
			t.Fatal(err)
		}
	}
	chunks, extents := 0, 0
	for k := 1; k <= 8; k++ {
		empty()
		w.mounted(func() {
			w.mkdir("/d")
			w.mkdir("/e")
			w.file("/d/x", 5)
			n := 0
			for i := range 64 * k { // in turns, so that no extent grows
				for _, dir := range []string{"/", "/e/"} {
					if dir == "/e/" || i < 64*k-2 {
						n++
						w.file(fmt.Sprintf("%sf%d", dir, n), 0)
					}
				}
			}
			for i := range 14 {
				w.file(fmt.Sprintf("/d/f%d", i), 0)
			}
		})
		before := w.check(false)
		w.edit(w.dentry("/d", "x"), func(l *layout.Line) { l.ClearDentry() })
		if dry := w.check(false); before.Files%16 != 13 || len(before.Problems) != 0 || len(dry.Problems) != 1 {
			t.Fatalf("%d inodes: %v, %v", before.Files+before.Dirs, before.Problems, dry.Problems)
		}
		if rep := w.check(true); rep.ExitCode() != 1 {
			t.Fatalf("%d: %v", k, rep.Problems)
		}
		after := w.check(false)
		if len(after.Problems) > 0 || after.InodeBlocks != before.InodeBlocks+1 {
			t.Fatalf("%d: %d inode blocks, were %d; %v", k, after.InodeBlocks, before.InodeBlocks, after.Problems)
		}
		chunks += int(after.MetaChunks - before.MetaChunks)
		extents += int(after.ExtentBlocks - before.ExtentBlocks)
		w.mounted(func() {
			if a := w.Stat(w.Ino(fmt.Sprintf("/lost+found/#%d", w.ino["/d/x"]))); a.Size != 5 {
				t.Errorf("%+v", a)
			}
			w.file("/after", 1)
		})
	}
	if chunks == 0 || extents == 0 {
		t.Errorf("%d new chunks and %d new extent blocks: not all was full", chunks, extents)
	}
}

// TestWorkers checks that the findings, the repairs and their order do not depend on the number of
// workers.
func TestWorkers(t *testing.T) {
	w := build(t)
	w.mounted(func() {
		for i := range 300 {
			dir := fmt.Sprintf("/d%d", i%20)
			if i < 20 {
				w.mkdir(dir)
			}
			path := fmt.Sprintf("%s/f%d", dir, i)
			w.file(path, 1)
			w.write(path, 8192, 1)
		}
		w.SetXattr(w.ino["/d3/f3"], "user.x", make([]byte, 9000))
		w.file("/large", 1)
		for i := 1; i < 126*40; i++ { // a chain that is not read ahead
			if i%2 == 0 {
				w.write("/large", int64(i)*4096, 1)
			}
		}
	})
	if rep := w.check(false); len(rep.Problems) > 0 || rep.ExtentBlocks < 16 {
		t.Fatalf("%d extent blocks; %v", rep.ExtentBlocks, rep.Problems)
	}
	for i := range 300 {
		path := fmt.Sprintf("/d%d/f%d", i%20, i)
		switch i % 8 {
		case 0:
			w.smash(w.inode(path))
		case 1:
			w.smash(w.inode(path) + layout.InodeTimesOff)
		case 2:
			w.extent(path, 1, func(e *layout.Extent) { e.Block = w.slot("/f", 0).Block })
		case 3:
			w.core(path, func(c *layout.Core) { c.Nlink = 9 })
		case 4:
			w.times(path, func(t *layout.Times) { t.XattrRoot, t.ExtentRoot = w.xattrRoot("/d3/f3"), 7 })
		}
	}
	for i := range 10 {
		w.smash(w.dentry(fmt.Sprintf("/d%d", i), fmt.Sprintf("f%d", i)))
	}
	var root uint64
	w.times("/large", func(t *layout.Times) { root = t.ExtentRoot })
	for i := int64(1); i < 9; i++ {
		w.smash(int64(root)<<layout.BlockShift + i*layout.LineSize)
	}
	image := bytes.Clone(w.R.Bytes(0, size))
	for _, repair := range []bool{false, true} {
		var want *fsck.Report
		var said []fsck.Problem
		for _, n := range []int{1, 8, 2} {
			w.restore(image)
			var now []fsck.Problem
			rep, err := fsck.Check(w.R, fsck.Options{Repair: repair, Workers: n, Found: func(p fsck.Problem) { now = append(now, p) }})
			if err != nil {
				t.Fatal(err)
			}
			if n == 1 {
				if want, said = rep, now; len(said) < 150 {
					t.Fatalf("%d findings only", len(said))
				}
			} else if !reflect.DeepEqual(rep, want) || !slices.Equal(now, said) {
				t.Errorf("%d workers, repairing %v: %d findings, one worker has %d, or others", n, repair, len(now), len(said))
			}
		}
	}
}

// TestRecoveryWork checks that the recovery of the next mount is no problem, and that a repair does
// it too.
func TestRecoveryWork(t *testing.T) {
	w := build(t)
	w.Mount()
	w.OK(w.FS.Lookup(&w.Ctx, w.Ino("/d"), "g", new(fs.Attr))) // open
	w.Unlink("/d/g")
	w.Crash()
	rep := w.check(false)
	if len(rep.Problems) != 0 || rep.Clean || rep.Orphans != 1 || rep.JournalRecords == 0 {
		t.Fatalf("%+v", rep)
	}
	rep = w.check(true)
	if rep.ExitCode() != 0 || rep.Orphans != 1 {
		t.Fatalf("repair: %+v", rep)
	}
	rep = w.check(false)
	if !rep.Clean || rep.Orphans != 0 || rep.JournalRecords != 0 || len(rep.Problems) != 0 {
		t.Fatalf("after the repair: %+v", rep)
	}
	w.verify("/d/g")
}

// TestShared checks that shared blocks are no problem, and are counted once.
func TestShared(t *testing.T) {
	w := build(t)
	before := w.check(false)
	w.mounted(func() {
		w.file("/copy", 0)
		w.Clone(w.ino["/f"], 0, w.ino["/copy"], 0, 8192)
	})
	if rep := w.check(false); len(rep.Problems) > 0 || rep.DataBlocks != before.DataBlocks {
		t.Errorf("%d data blocks, were %d; %v", rep.DataBlocks, before.DataBlocks, rep.Problems)
	}
}

func TestNoFilesystem(t *testing.T) {
	if _, err := fsck.Check(fstest.Memory(t, size), fsck.Options{}); err == nil {
		t.Error("zeros pass for a filesystem")
	}
}

// TestSmallerThanRegion checks that the second superblock is found if mkfs was given a size.
func TestSmallerThanRegion(t *testing.T) {
	r := fstest.Memory(t, 2*size)
	o := options()
	o.Size = size
	if _, err := fs.Mkfs(r, o); err != nil {
		t.Fatal(err)
	}
	if err := r.Store(0, make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	rep, err := fsck.Check(r, fsck.Options{Repair: true})
	if err != nil || rep.ExitCode() != 1 || !rep.BackupUsed {
		t.Fatalf("%+v, %v", rep, err)
	}
}
