package fsck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/fs/fsck"
	"github.com/daxfs/daxfs/fs/layout"
)

// harm damages the region by a script: 8 bytes a step say where, how, and whether the
// line is sealed again, so that wrong content with a right checksum is met too. It returns
// which lines it damaged, nil if one of them was sealed.
func harm(w *world, script []byte) map[int64]bool {
	lines, sealed := map[int64]bool{}, false
	for len(script) >= 8 {
		v := binary.LittleEndian.Uint64(script)
		script = script[8:]
		off := w.metadata(v >> 16)
		lines[off] = true
		if v&1 != 0 {
			w.edit(off, func(l *layout.Line) { l[layout.PayloadOff+(v>>1)%layout.PayloadSize] ^= byte(v>>8) | 1 })
			sealed = true
			continue
		}
		var l layout.Line
		w.r.LoadLine(off, (*[64]byte)(&l))
		l[(v>>1)%64] ^= byte(v>>8) | 1
		w.store(off, l[:])
	}
	if sealed {
		return nil
	}
	return lines
}

// leads are the lines that lead to a file and its content: its inode's, the blocks that hold
// its extents, and the same of each directory above it, with all lines of that.
func (w *world) leads(path string) (lines []int64) {
	block := func(b uint64) {
		for i := range int64(layout.LinesPerBlock) {
			lines = append(lines, int64(b)<<layout.BlockShift+i*layout.LineSize)
		}
	}
	for dir := false; ; dir = true {
		for i := range int64(layout.InodeSize / layout.LineSize) {
			lines = append(lines, w.inode(path)+i*layout.LineSize)
		}
		w.times(path, func(t *layout.Times) {
			if t.ExtentRoot != 0 {
				block(t.ExtentRoot)
			}
		})
		if dir {
			block(w.slot(path, 0).Block)
		}
		if path == "/" {
			return lines
		}
		path = max(path[:strings.LastIndexByte(path, '/')], "/")
	}
}

// contents are the files of build, and the first bytes of each.
func (w *world) contents() map[string]string {
	c := map[string]string{}
	for path, n := range map[string]int{"/f": 4096, "/d/g": 100, "/d/sub/deep": 4096, "/frag": 1} {
		c[path] = strings.Repeat(path[len(path)-1:], n)
	}
	return c
}

// read is the beginning of the file at path, and whether there is one.
func (w *world) read(f *fs.FS, path string) (string, syscall.Errno) {
	var a fs.Attr
	ino := uint64(layout.RootIno)
	for _, name := range strings.Split(path[1:], "/") {
		if e := f.Lookup(&fs.Context{}, ino, name, &a); e != 0 {
			return "", e
		}
		ino = a.Ino
	}
	r := f.NewReply()
	defer r.Free()
	if e := f.Read(&fs.Context{}, ino, 0, 4096, r); e != 0 {
		return "", e
	}
	defer r.Done()
	return string(bytes.Join(r.Slices(), nil)), 0
}

// metadata is the offset of some metadata line.
func (w *world) metadata(v uint64) int64 {
	lines := w.sb.StaticEnd / 64
	chunk := w.sb.ChunkSize()/64 + (w.sb.ChunkSize()-w.sb.StaticEnd%w.sb.ChunkSize())/64
	if v%8 == 0 {
		return int64(v>>3) % lines * 64
	}
	return w.sb.StaticEnd + int64(v>>3)%chunk*64
}

// survive damages, checks, repairs and mounts what is left: it must end, without a panic, and
// where nothing but checksums is wrong what the damage does not concern is as it was.
func survive(w *world, script []byte) {
	whole := map[string][]int64{}
	for path := range w.contents() {
		whole[path] = w.leads(path)
	}
	damaged := harm(w, script)
	rep, err := fsck.Check(w.r, fsck.Options{})
	if err != nil {
		return
	}
	sound := len(rep.Problems) == 0
	rep, err = fsck.Check(w.r, fsck.Options{Repair: true})
	if err != nil {
		return
	}
	if sound && rep.ExitCode() != 0 {
		w.Errorf("check found nothing, the repair: %v", rep.Problems)
	}
	if rep.Left > 0 {
		use(w)
		return
	}
	again, err := fsck.Check(w.r, fsck.Options{})
	if err != nil || len(again.Problems) > 0 {
		w.Errorf("repaired, and then: %v %v; the repair said: %v", err, again.Problems, rep.Problems)
		return
	}
	w.mounted(func(f *fs.FS) {
		for path, want := range w.contents() {
			touched := damaged == nil
			for _, off := range whole[path] {
				touched = touched || damaged[off]
			}
			if touched {
				continue
			}
			if got, e := w.read(f, path); e != 0 || !strings.HasPrefix(got, want) {
				w.Errorf("%s was not touched by the damage and is %d bytes now, %v", path, len(got), e)
			}
		}
		for _, what := range walk(f, func(ino uint64, d *fs.Dirent) {}) {
			w.Errorf("after a repair: %s", what)
		}
		var a fs.Attr
		if e := f.Mknod(&fs.Context{}, 1, "after the repair", syscall.S_IFREG|0o600, 0, &a); e != 0 {
			w.Errorf("create after a repair: %v", e)
		}
	})
}

// walk calls f for each name, directories after what is in them, and returns what went wrong.
func walk(m *fs.FS, f func(dir uint64, d *fs.Dirent)) (wrong []string) {
	var list func(ino uint64, depth int)
	list = func(ino uint64, depth int) {
		var kids []fs.Dirent
		if e := m.ReadDir(&fs.Context{}, ino, 2, func(d *fs.Dirent) bool {
			if name := string(d.Name); name != "." && name != ".." {
				k := *d
				k.Name = bytes.Clone(d.Name)
				kids = append(kids, k)
			}
			return true
		}); e != 0 {
			wrong = append(wrong, fmt.Sprintf("readdir of %d: %v", ino, e))
		}
		for i := range kids {
			if kids[i].Type == syscall.DT_DIR && depth < 50 {
				list(kids[i].Ino, depth+1)
			}
			f(ino, &kids[i])
		}
	}
	list(layout.RootIno, 0)
	return wrong
}

// use mounts what nobody repaired, and reads, writes and deletes all that there is. Anything
// may fail, but it must end, without a panic.
func use(w *world) {
	m, err := fs.Mount(w.r, fs.Options{Clock: func() int64 { return 2e18 }})
	if err != nil {
		return
	}
	ctx := &fs.Context{}
	var a fs.Attr
	buf := make([]byte, 1<<16)
	walk(m, func(dir uint64, d *fs.Dirent) {
		name := string(d.Name)
		if m.Lookup(ctx, dir, name, &a) != 0 {
			return
		}
		ino := a.Ino
		r := m.NewReply()
		if m.Read(ctx, ino, 0, 1<<20, r) == 0 {
			_ = bytes.Join(r.Slices(), nil)
			r.Done()
		}
		r.Free()
		m.Readlink(ctx, ino, buf)
		m.GetXattr(ctx, ino, "user.long", buf)
		m.SetXattr(ctx, ino, "user.new", []byte("v"), 0)
		m.Write(ctx, ino, 5000, []byte("written"))
		m.SetAttr(ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 100}, &a)
		m.Rename(ctx, dir, name, dir, name+"2", 0)
		if d.Type == syscall.DT_DIR {
			m.Rmdir(ctx, dir, name+"2")
		} else {
			m.Unlink(ctx, dir, name+"2")
		}
		m.Forget(ino, 1)
	})
	if m.Mknod(ctx, layout.RootIno, "new", syscall.S_IFREG|0o600, 0, &a) == 0 {
		m.Write(ctx, a.Ino, 0, buf)
	}
	m.Unmount()
	fsck.Check(w.r, fsck.Options{Repair: true})
}

func TestRandomDamage(t *testing.T) {
	n := 1500
	if testing.Short() {
		n = 60
	}
	w := build(t)
	image := bytes.Clone(w.r.Bytes(0, size))
	x := uint64(1)
	for i := 0; i < n && !t.Failed(); i++ {
		script := make([]byte, 8*(1+i%6))
		for j := 0; j < len(script); j += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(script[j:], x^x>>29)
		}
		survive(w, script)
		if t.Failed() {
			t.Logf("script %d: %x", i, script)
		}
		w.restore(image)
	}
}

// restore puts the image back where it differs.
func (w *world) restore(image []byte) {
	for off := int64(0); off < size; off += 4096 {
		if b := image[off : off+4096]; !bytes.Equal(b, w.r.Bytes(off, 4096)) {
			w.store(off, b)
		}
	}
}

// scripts are the first inputs of the fuzzers.
func scripts(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7})
	f.Add([]byte{1, 1, 0, 0, 0, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{3, 0x55, 9, 0, 1, 0, 0, 0}, 4))
}

// FuzzDamage: metadata is damaged, then checked and repaired.
func FuzzDamage(f *testing.F) {
	scripts(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 256 {
			survive(build(t), script)
		}
	})
}

// FuzzUse: metadata is damaged, and then used.
func FuzzUse(f *testing.F) {
	scripts(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 256 {
			w := build(t)
			harm(w, script)
			use(w)
		}
	})
}

// FuzzSuper: a superblock says anything, with a right checksum, in both its places.
func FuzzSuper(f *testing.F) {
	scripts(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 256 {
			return
		}
		w := build(t)
		b := bytes.Clone(w.r.Bytes(0, layout.SuperSize))
		for ; len(script) >= 3; script = script[3:] {
			b[binary.LittleEndian.Uint16(script)%layout.SuperSize] ^= script[2]
		}
		binary.LittleEndian.PutUint32(b[layout.SuperSize-4:], layout.Checksum(0, b[:layout.SuperSize-4]))
		s, err := layout.DecodeSuper(b, 0)
		if err != nil {
			return
		}
		w.store(0, b)
		if s.BackupOff >= layout.SuperSize && s.BackupOff <= size-layout.SuperSize {
			w.store(s.BackupOff, b)
		}
		fsck.Check(w.r, fsck.Options{})
		use(w)
	})
}
