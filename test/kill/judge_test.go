package kill

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/oracle"
)

// TestJudge checks that the judge accepts the right tree and notices each kind of difference.
func TestJudge(t *testing.T) {
	run := begin(t, 1, time.Minute)
	run.burst(600, func() {})
	run.judge()
	const w = 0
	state := filepath.Join(run.Dir, "judged")
	if err := run.trees[w].Save(state); err != nil {
		t.Fatal(err)
	}
	// first returns the first name, in sorted order, for which f is true.
	first := func(model *oracle.Tree, match func(name string, n *oracle.Node) bool) (string, *oracle.Node) {
		for _, name := range slices.Sorted(maps.Keys(model.Names)) {
			if n := model.At(name); match(name, n) {
				return name, n
			}
		}
		t.Fatal("600 calls have left nothing of the kind that is needed")
		return "", nil
	}
	file := func(_ string, n *oracle.Node) bool { return n.Is(unix.S_IFREG) && len(n.Data) > 20000 }
	for _, row := range []struct {
		what string
		do   func(model *oracle.Tree)
		want string
	}{
		{"nothing", func(*oracle.Tree) {}, ""},
		{"a file is lost", func(model *oracle.Tree) { model.Add(oracle.WorkerDir(w)+"/lost", unix.S_IFREG|0o600, nil) }, "lstat"},
		{"a file came back", func(model *oracle.Tree) { name, _ := first(model, file); model.Drop(name) }, "should not be there"},
		{"a byte differs", func(model *oracle.Tree) { _, n := first(model, file); n.Data[12345] ^= 1 }, "the first difference is at 12345"},
		{"the end is lost", func(model *oracle.Tree) { _, n := first(model, file); n.Grow(int64(len(n.Data)) + 1) }, "bytes, want"},
		{"the mode is old", func(model *oracle.Tree) { _, n := first(model, file); n.Mode ^= 0o020 }, "has mode"},
		{"a target is wrong", func(model *oracle.Tree) {
			_, n := first(model, func(_ string, n *oracle.Node) bool { return n.Is(unix.S_IFLNK) })
			n.Data = append(n.Data, 'x')
		}, "its target is"},
		{"an attribute is lost", func(model *oracle.Tree) { _, n := first(model, file); n.Xattr = map[string][]byte{"user.lost": nil} }, "attributes"},
		{"an attribute is old", func(model *oracle.Tree) {
			_, n := first(model, func(_ string, n *oracle.Node) bool { return len(n.Xattr) > 0 })
			for name := range n.Xattr {
				n.Xattr[name] = append(n.Xattr[name], 'x')
			}
		}, "is not the value"},
		{"a link is a copy", func(model *oracle.Tree) {
			name, n := first(model, func(name string, n *oracle.Node) bool { return !n.Is(unix.S_IFDIR) && model.Nlink(name) > 1 })
			model.Next++
			model.Names[name], model.Nodes[model.Next] = model.Next, n
		}, "links, want"},
		{"a directory's link count is wrong", func(model *oracle.Tree) {
			_, n := first(model, func(name string, n *oracle.Node) bool { return n.Is(unix.S_IFDIR) && name != oracle.WorkerDir(w) })
			n.Mode = unix.S_IFREG | n.Mode&0o777
		}, ""},
	} {
		loaded, err := oracle.Load(state)
		if err != nil {
			t.Fatal(err)
		}
		row.do(loaded)
		_, err = loaded.Judge(run.Mountpoint, w, nil)
		switch {
		case row.what == "nothing":
			if err != nil {
				t.Errorf("nothing is wrong: %v", err)
			}
		case err == nil || !strings.Contains(err.Error(), row.want):
			t.Errorf("%s: %v; want an error with %q", row.what, err, row.want)
		}
	}
	// A call in flight: not done, done in part, and done.
	tree := run.trees[w]
	name, n := first(tree, file)
	write := oracle.Op{Kind: "write", A: name, Off: 4096, Len: 8192, Seed: 99}
	for _, row := range []struct {
		what string
		want oracle.Outcome
		data []byte
	}{
		{"not", oracle.Undone, n.Data[4096:12288]},
		{"a part of it", oracle.Part, slices.Concat(oracle.Fill(99, 8192)[:4000], n.Data[8096:12288])},
		{"all", oracle.Done, oracle.Fill(99, 8192)},
	} {
		opened, err := os.OpenFile(run.Path(name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := opened.WriteAt(row.data, 4096); err != nil {
			t.Fatal(err)
		}
		opened.Close()
		if got, err := tree.Judge(run.Mountpoint, w, &write); got != row.want || err != nil {
			t.Errorf("a write in flight that has happened, %s: judged %q, %v", row.what, got, err)
		}
	}
}
