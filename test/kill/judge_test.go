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
	m := begin(t, 1, time.Minute)
	m.burst(600, func() {})
	m.judge()
	const w = 0
	state := filepath.Join(m.Dir, "judged")
	if err := m.trees[w].Save(state); err != nil {
		t.Fatal(err)
	}
	// first returns the first name, in sorted order, for which f is true.
	first := func(tr *oracle.Tree, f func(name string, n *oracle.Node) bool) (string, *oracle.Node) {
		for _, name := range slices.Sorted(maps.Keys(tr.Names)) {
			if n := tr.At(name); f(name, n) {
				return name, n
			}
		}
		t.Fatal("600 calls have left nothing of the kind that is needed")
		return "", nil
	}
	file := func(_ string, n *oracle.Node) bool { return n.Is(unix.S_IFREG) && len(n.Data) > 20000 }
	for _, c := range []struct {
		what string
		do   func(tr *oracle.Tree)
		want string
	}{
		{"nothing", func(*oracle.Tree) {}, ""},
		{"a file is lost", func(tr *oracle.Tree) { tr.Add(oracle.WorkerDir(w)+"/lost", unix.S_IFREG|0o600, nil) }, "lstat"},
		{"a file came back", func(tr *oracle.Tree) { name, _ := first(tr, file); tr.Drop(name) }, "should not be there"},
		{"a byte differs", func(tr *oracle.Tree) { _, n := first(tr, file); n.Data[12345] ^= 1 }, "the first difference is at 12345"},
		{"the end is lost", func(tr *oracle.Tree) { _, n := first(tr, file); n.Grow(int64(len(n.Data)) + 1) }, "bytes, want"},
		{"the mode is old", func(tr *oracle.Tree) { _, n := first(tr, file); n.Mode ^= 0o020 }, "has mode"},
		{"a target is wrong", func(tr *oracle.Tree) {
			_, n := first(tr, func(_ string, n *oracle.Node) bool { return n.Is(unix.S_IFLNK) })
			n.Data = append(n.Data, 'x')
		}, "its target is"},
		{"an attribute is lost", func(tr *oracle.Tree) { _, n := first(tr, file); n.Xattr = map[string][]byte{"user.lost": nil} }, "attributes"},
		{"an attribute is old", func(tr *oracle.Tree) {
			_, n := first(tr, func(_ string, n *oracle.Node) bool { return len(n.Xattr) > 0 })
			for name := range n.Xattr {
				n.Xattr[name] = append(n.Xattr[name], 'x')
			}
		}, "is not the value"},
		{"a link is a copy", func(tr *oracle.Tree) {
			name, n := first(tr, func(name string, n *oracle.Node) bool { return !n.Is(unix.S_IFDIR) && tr.Nlink(name) > 1 })
			tr.Next++
			tr.Names[name], tr.Nodes[tr.Next] = tr.Next, n
		}, "links, want"},
		{"a directory's link count is wrong", func(tr *oracle.Tree) {
			_, n := first(tr, func(name string, n *oracle.Node) bool { return n.Is(unix.S_IFDIR) && name != oracle.WorkerDir(w) })
			n.Mode = unix.S_IFREG | n.Mode&0o777
		}, ""},
	} {
		tr, err := oracle.Load(state)
		if err != nil {
			t.Fatal(err)
		}
		c.do(tr)
		_, err = tr.Judge(m.Mountpoint, w, nil)
		switch {
		case c.what == "nothing":
			if err != nil {
				t.Errorf("nothing is wrong: %v", err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v; want an error with %q", c.what, err, c.want)
		}
	}
	// A call in flight: not done, done in part, and done.
	tr := m.trees[w]
	name, n := first(tr, file)
	o := oracle.Op{Kind: "write", A: name, Off: 4096, Len: 8192, Seed: 99}
	for _, c := range []struct {
		what string
		want oracle.Outcome
		data []byte
	}{
		{"not", oracle.Undone, n.Data[4096:12288]},
		{"a part of it", oracle.Part, slices.Concat(oracle.Fill(99, 8192)[:4000], n.Data[8096:12288])},
		{"all", oracle.Done, oracle.Fill(99, 8192)},
	} {
		f, err := os.OpenFile(m.Path(name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(c.data, 4096); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got, err := tr.Judge(m.Mountpoint, w, &o); got != c.want || err != nil {
			t.Errorf("a write in flight that has happened, %s: judged %q, %v", c.what, got, err)
		}
	}
}
