package kill

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// replay applies what a log says was acknowledged. It returns how many calls that were
// and the one that was not, or nil.
func (t *tree) replay(log string) (n int, flight *op, err error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		kind, rest, _ := strings.Cut(sc.Text(), " ")
		switch {
		case kind == "?" && flight == nil:
			flight = &op{}
			if err := json.Unmarshal([]byte(rest), flight); err != nil {
				return n, nil, fmt.Errorf("%s: %q: %w", log, sc.Text(), err)
			}
		case kind == "!" && flight != nil:
			var call int
			var ret int64
			if _, err := fmt.Sscan(rest, &call, &ret); err != nil || call != flight.N {
				return n, nil, fmt.Errorf("%s: %q after call %d (%v)", log, sc.Text(), flight.N, err)
			}
			t.apply(*flight, ret)
			flight = nil
			n++
		default:
			return n, nil, fmt.Errorf("%s: %q where it cannot be", log, sc.Text())
		}
	}
	return n, flight, sc.Err()
}

// An outcome is what became of a call that was not acknowledged.
type outcome string

const (
	undone outcome = "old"
	done   outcome = "new"
	part   outcome = "part"
)

// judge compares worker w's files with the tree. The call in flight, if there is one,
// may have happened or not, and of its data a part; the tree becomes what is there.
func (t *tree) judge(mnt string, w int, flight *op) (outcome, error) {
	before := t.diff(mnt, w, nil)
	if before == nil {
		return undone, nil
	}
	if flight == nil {
		return "", before
	}
	var d *data
	switch o := *flight; o.Kind {
	case "write", "append", "fallocate":
		d = &data{o: o, node: t.at(o.A)}
	case "copy":
		d = &data{o: o, node: t.at(o.B)}
	}
	if d != nil {
		d.old = slices.Clone(d.node.Data)
	}
	t.apply(*flight, flight.Len)
	err := t.diff(mnt, w, d)
	if err != nil {
		return "", fmt.Errorf("neither without the call in flight (%+v): %w\nnor with it: %w", *flight, before, err)
	}
	if d != nil && !bytes.Equal(d.node.Data, d.got) {
		d.node.Data = d.got
		return part, nil
	}
	return done, nil
}

// data is a file whose data was being changed.
type data struct {
	o    op
	node *node
	old  []byte
	got  []byte // what was found
}

// diff says how the files found differ from the tree; d, if not nil, may be torn.
func (t *tree) diff(mnt string, w int, d *data) error {
	found := map[string]bool{}
	tops, err := filepath.Glob(filepath.Join(mnt, shared, workerDir(w)+"-*"))
	if err != nil {
		return err
	}
	for _, top := range append(tops, filepath.Join(mnt, workerDir(w))) {
		err := filepath.WalkDir(top, func(p string, _ fs.DirEntry, err error) error {
			name, _ := filepath.Rel(mnt, p)
			found[name] = true
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if t.at(name) == nil {
			return fmt.Errorf("%s should not be there", name)
		}
	}
	inos, nodes := map[int]uint64{}, map[uint64]int{}
	for _, name := range slices.Sorted(maps.Keys(t.Names)) {
		id := t.Names[name]
		n := t.Nodes[id]
		p := filepath.Join(mnt, name)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil || !found[name] {
			return fmt.Errorf("%s: listed: %v; lstat: %w", name, found[name], err)
		}
		if st.Mode != n.Mode {
			return fmt.Errorf("%s has mode %o, want %o", name, st.Mode, n.Mode)
		}
		if want := t.nlink(name); uint64(st.Nlink) != want {
			return fmt.Errorf("%s has %d links, want %d", name, st.Nlink, want)
		}
		if other, ok := nodes[st.Ino]; ok && other != id {
			return fmt.Errorf("%s is inode %d, and so is another file", name, st.Ino)
		}
		if ino, ok := inos[id]; ok {
			if ino != st.Ino {
				return fmt.Errorf("%s is inode %d, and its other name inode %d", name, st.Ino, ino)
			}
			continue
		}
		nodes[st.Ino], inos[id] = id, st.Ino
		if err := n.diff(p, st.Size, d); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// diff says how what is at p, of that size, differs from the node.
func (n *node) diff(p string, size int64, d *data) error {
	switch {
	case n.is(unix.S_IFREG):
		got, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if int64(len(got)) != size {
			return fmt.Errorf("its size is %d and %d bytes can be read", size, len(got))
		}
		if d != nil && n == d.node {
			d.got = got
			if why := torn(d.o, d.old, n.Data, got); why != "" {
				return fmt.Errorf("torn: %s", why)
			}
		} else if !bytes.Equal(got, n.Data) {
			at := 0
			for at < min(len(got), len(n.Data)) && got[at] == n.Data[at] {
				at++
			}
			return fmt.Errorf("%d bytes, want %d; the first difference is at %d", len(got), len(n.Data), at)
		}
	case n.is(unix.S_IFLNK):
		if got, err := os.Readlink(p); err != nil || got != string(n.Data) {
			return fmt.Errorf("its target is %q, want %q (%v)", got, n.Data, err)
		}
		return nil // and no user.* attributes
	}
	buf := make([]byte, 64<<10)
	m, err := unix.Llistxattr(p, buf)
	if err != nil {
		return fmt.Errorf("listing attributes: %w", err)
	}
	names := strings.FieldsFunc(string(buf[:m]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(n.Xattr)); !slices.Equal(names, want) {
		return fmt.Errorf("attributes %v, want %v", names, want)
	}
	for name, want := range n.Xattr {
		if m, err := unix.Lgetxattr(p, name, buf); err != nil || !bytes.Equal(buf[:m], want) {
			return fmt.Errorf("%s is not the value of %d bytes that was set (%v)", name, len(want), err)
		}
	}
	return nil
}

// TestJudge: what is right passes, and each thing that can be wrong is noticed.
func TestJudge(t *testing.T) {
	m := begin(t, 1, time.Minute)
	m.burst(600, func() {})
	m.judge()
	const w = 0
	state := filepath.Join(m.Dir, "judged")
	if err := m.trees[w].save(state); err != nil {
		t.Fatal(err)
	}
	// first is the first name, in order, that f likes.
	first := func(tr *tree, f func(name string, n *node) bool) (string, *node) {
		for _, name := range slices.Sorted(maps.Keys(tr.Names)) {
			if n := tr.at(name); f(name, n) {
				return name, n
			}
		}
		t.Fatal("600 calls have left nothing of the kind that is needed")
		return "", nil
	}
	file := func(_ string, n *node) bool { return n.is(unix.S_IFREG) && len(n.Data) > 20000 }
	for _, c := range []struct {
		what string
		do   func(tr *tree)
		want string
	}{
		{"nothing", func(*tree) {}, ""},
		{"a file is lost", func(tr *tree) { tr.add(workerDir(w)+"/lost", unix.S_IFREG|0o600, nil) }, "lstat"},
		{"a file came back", func(tr *tree) { name, _ := first(tr, file); tr.drop(name) }, "should not be there"},
		{"a byte differs", func(tr *tree) { _, n := first(tr, file); n.Data[12345] ^= 1 }, "the first difference is at 12345"},
		{"the end is lost", func(tr *tree) { _, n := first(tr, file); n.grow(int64(len(n.Data)) + 1) }, "bytes, want"},
		{"the mode is old", func(tr *tree) { _, n := first(tr, file); n.Mode ^= 0o020 }, "has mode"},
		{"a target is wrong", func(tr *tree) {
			_, n := first(tr, func(_ string, n *node) bool { return n.is(unix.S_IFLNK) })
			n.Data = append(n.Data, 'x')
		}, "its target is"},
		{"an attribute is lost", func(tr *tree) { _, n := first(tr, file); n.Xattr = map[string][]byte{"user.lost": nil} }, "attributes"},
		{"an attribute is old", func(tr *tree) {
			_, n := first(tr, func(_ string, n *node) bool { return len(n.Xattr) > 0 })
			for name := range n.Xattr {
				n.Xattr[name] = append(n.Xattr[name], 'x')
			}
		}, "is not the value"},
		{"a link is a copy", func(tr *tree) {
			name, n := first(tr, func(name string, n *node) bool { return !n.is(unix.S_IFDIR) && tr.nlink(name) > 1 })
			tr.Next++
			tr.Names[name], tr.Nodes[tr.Next] = tr.Next, n
		}, "links, want"},
		{"a directory's link count is wrong", func(tr *tree) {
			_, n := first(tr, func(name string, n *node) bool { return n.is(unix.S_IFDIR) && name != workerDir(w) })
			n.Mode = unix.S_IFREG | n.Mode&0o777
		}, ""},
	} {
		tr, err := load(state)
		if err != nil {
			t.Fatal(err)
		}
		c.do(tr)
		_, err = tr.judge(m.Mountpoint, w, nil)
		switch {
		case c.what == "nothing":
			if err != nil {
				t.Errorf("nothing is wrong: %v", err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v; want an error with %q", c.what, err, c.want)
		}
	}
	// A call in flight that has happened, one that has not, and a part of one.
	tr := m.trees[w]
	name, n := first(tr, file)
	o := op{Kind: "write", A: name, Off: 4096, Len: 8192, Seed: 99}
	for _, c := range []struct {
		what string
		want outcome
		data []byte
	}{
		{"not", undone, n.Data[4096:12288]},
		{"a part of it", part, slices.Concat(fill(99, 8192)[:4000], n.Data[8096:12288])},
		{"all", done, fill(99, 8192)},
	} {
		f, err := os.OpenFile(m.Path(name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(c.data, 4096); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got, err := tr.judge(m.Mountpoint, w, &o); got != c.want || err != nil {
			t.Errorf("a write in flight that has happened, %s: judged %q, %v", c.what, got, err)
		}
	}
}

func TestTorn(t *testing.T) {
	old, data := bytes.Repeat([]byte("o"), 64), bytes.Repeat([]byte("N"), 64)
	// The call writes 64 bytes at 20: 4 bytes of a word, then words, then beyond the end.
	o := op{Kind: "write", Off: 20, Len: 64}
	want := slices.Concat(old[:20], data)
	at := func(n int, b byte) []byte { g := slices.Clone(want); g[n] = b; return g }
	for _, c := range []struct {
		what string
		got  []byte
		ok   bool
	}{
		{"old", old, true},
		{"new", want, true},
		{"data old, size new", slices.Concat(old, data[:20]), true},
		{"data new, size old", want[:64], true},
		{"data new, a part of the size", want[:70], true},
		{"a word old", slices.Concat(want[:32], old[32:40], want[40:]), true},
		{"half a word old", slices.Concat(want[:32], old[32:36], want[36:]), false},
		{"a byte old where the call begins within a word", at(20, 'o'), true},
		{"a byte of neither", at(20, 'x'), false},
		{"a byte beside the call", at(19, 'N'), false},
		{"beyond the old end not yet written", at(80, 0), false},
		{"beyond the old end what was there", at(80, 'o'), false},
		{"too small", want[:63], false},
		{"too large", slices.Concat(want, data[:1]), false},
	} {
		if why := torn(o, old, want, c.got); (why == "") != c.ok {
			t.Errorf("%s: judged %q", c.what, why)
		}
	}
	gap := op{Kind: "write", Off: 100, Len: 8}
	whole := slices.Concat(old, make([]byte, 36), data[:8])
	if why := torn(gap, old, whole, whole[:80]); why == "" {
		t.Error("a size between the old end and the call is right")
	}
}
