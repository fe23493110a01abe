package fsck_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// blockOf returns the region block of file block b.
func (w *world) blockOf(ino, b uint64) (block uint64) {
	for _, x := range w.Extents(ino) {
		if x.Logical <= b && b < x.Logical+x.Len {
			block = x.Block + b - x.Logical
		}
	}
	return block
}

// TestLostData checks that fsck reports the path and the byte range of data in bad ranges, and
// repairs other damage. Bad memory does not keep the filesystem from being clean.
func TestLostData(t *testing.T) {
	w := build(t)
	var bad []layout.BadRange
	var deep uint64
	w.mounted(func() {
		w.mkdir("/d/a")
		w.mkdir("/d/a/b c")
		w.file("/d/a/b c/deep", 5*4096+100)
		w.symlink("/long", strings.Repeat("x", 300))
		deep = w.ino["/d/a/b c/deep"]
		bad = append(bad, layout.BadRange{Block: w.blockOf(deep, 1), Len: 2}, layout.BadRange{Block: w.blockOf(deep, 5), Len: 1},
			layout.BadRange{Block: w.blockOf(w.ino["/long"], 0), Len: 1})
	})
	for i, b := range bad {
		w.edit(w.sb.BadOff+int64(i)*layout.LineSize, func(l *layout.Line) { b.Put(l) })
	}
	want := []string{
		fmt.Sprintf("/d/a/b c/deep %d 4096+8192", deep), fmt.Sprintf("/d/a/b c/deep %d 20480+100", deep),
		fmt.Sprintf("/long %d 0+300", w.ino["/long"]),
	}
	check := func(what string, o fsck.Options, others, exit int) {
		t.Helper()
		said := 0
		o.Found = func(fsck.Problem) { said++ }
		rep, err := fsck.Check(w.R, o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var got []string
		for _, p := range rep.Problems {
			if p.Code != fsck.LostData {
				others--
				continue
			}
			got = append(got, fmt.Sprintf("%s %d %d+%d", p.Path, p.Ino, p.FileOffset, p.Bytes))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || others != 0 || rep.LostRanges != len(want) || rep.ExitCode() != exit || said != len(rep.Problems) {
			t.Errorf("%s: exit %d, said %d, lost %d, expected exit %d: %+v", what, rep.ExitCode(), said, rep.LostRanges, exit, rep.Problems)
		}
		if rep.BadRanges != len(bad) || rep.BadBlocks != 4 {
			t.Errorf("%s: %d ranges of %d blocks", what, rep.BadRanges, rep.BadBlocks)
		}
	}
	check("fsck", fsck.Options{}, 0, 4)
	check("fsck -y", fsck.Options{Repair: true}, 0, 4)
	w.smash(w.sb.ChunkMapOff)
	check("fsck of what is damaged besides", fsck.Options{}, 1, 4)
	check("fsck -y of what is damaged besides", fsck.Options{Repair: true}, 1, 5)
	check("and again", fsck.Options{}, 0, 4)
	w.mounted(func() {
		r := w.FS.NewPinnedRead()
		if e := w.FS.Read(&w.Ctx, deep, 4096, 4096, r); e != syscall.EIO {
			t.Errorf("reading what is lost: %v", e)
		}
		if _, e := w.FS.Readlink(&w.Ctx, w.ino["/long"], nil); e != syscall.EIO {
			t.Errorf("reading a link that is lost: %v", e)
		}
	})
	check("after a mount", fsck.Options{}, 0, 4)
}

// TestLostValue checks that the value of an attribute in a bad range is reported as lost, and that
// the rest of the file stays.
func TestLostValue(t *testing.T) {
	w := build(t)
	rep, err := fsck.Check(w.R, fsck.Options{})
	if err != nil || rep.Left > 0 {
		t.Fatal(err, rep)
	}
	value := layout.BadRange{Len: 1}
	for string(w.R.Bytes(int64(value.Block)<<12, 100)) != strings.Repeat("v", 100) {
		value.Block++
	}
	w.edit(w.sb.BadOff, func(l *layout.Line) { value.Put(l) })
	rep, err = fsck.Check(w.R, fsck.Options{})
	if err != nil || len(rep.Problems) != 1 || rep.Problems[0].Code != fsck.LostData || rep.Problems[0].Path != "/d/g" || !strings.Contains(rep.Problems[0].What, `"user.long"`) {
		t.Fatalf("%v, %+v", err, rep)
	}
	w.mounted(func() {
		b := make([]byte, 20000)
		if _, e := w.FS.GetXattr(&w.Ctx, w.ino["/d/g"], "user.long", b); e != syscall.EIO {
			t.Errorf("reading the value: %v", e)
		}
		if n, e := w.FS.GetXattr(&w.Ctx, w.ino["/d/g"], "user.short", b); e != 0 || string(b[:n]) != "value" {
			t.Errorf("reading another: %v", e)
		}
		w.SetXattr(w.ino["/d/g"], "user.long", []byte("new"))
		if s := w.FS.Stats(); s.OfflineBytes != 4096 {
			t.Errorf("%d bytes are retired", s.OfflineBytes)
		}
	})
	if rep, err := fsck.Check(w.R, fsck.Options{}); err != nil || rep.Left > 0 {
		t.Errorf("in the end: %v, %+v", err, rep)
	}
}
