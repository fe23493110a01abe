package oracle

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Replay applies the acknowledged calls of a log to the tree. It returns their number, and the call
// in flight, or nil. A last line without a newline counts as not written: what it reports had not
// happened yet.
func (t *Tree) Replay(log string) (n int, flight *Op, err error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return n, flight, nil
		}
		if err != nil {
			return n, flight, err
		}
		line = strings.TrimSuffix(line, "\n")
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case kind == "?" && flight == nil:
			flight = &Op{}
			if err := json.Unmarshal([]byte(rest), flight); err != nil {
				return n, nil, fmt.Errorf("%s: %q: %w", log, line, err)
			}
		case kind == "!" && flight != nil:
			var call int
			var ret int64
			if _, err := fmt.Sscan(rest, &call, &ret); err != nil || call != flight.N {
				return n, nil, fmt.Errorf("%s: %q after call %d (%v)", log, line, flight.N, err)
			}
			t.Apply(*flight, ret)
			flight = nil
			n++
		default:
			return n, nil, fmt.Errorf("%s: %q where it cannot be", log, line)
		}
	}
}

// An Outcome is the effect of a call that was not acknowledged: none, all of it, or part of its
// data.
type Outcome string

const (
	Undone Outcome = "old"
	Done   Outcome = "new"
	Part   Outcome = "part"
)

// Judge compares worker w's files with the tree. The call in flight (nil: none) may have happened
// or not, and its data may be there in part. The tree is updated to what is there.
func (t *Tree) Judge(mnt string, w int, flight *Op) (Outcome, error) {
	before := t.diff(mnt, w, nil)
	if before == nil {
		return Undone, nil
	}
	if flight == nil {
		return "", before
	}
	var d *data
	if name := flight.Target(); name != "" {
		d = &data{o: *flight, node: t.At(name)}
		d.old = slices.Clone(d.node.Data)
	}
	t.Apply(*flight, flight.Len)
	err := t.diff(mnt, w, d)
	if err != nil {
		return "", fmt.Errorf("neither without the call in flight (%+v): %w\nnor with it: %w", *flight, before, err)
	}
	if d != nil && !bytes.Equal(d.node.Data, d.got) {
		d.node.Data = d.got
		return Part, nil
	}
	return Done, nil
}

// data describes a file whose data the call in flight was changing.
type data struct {
	o    Op
	node *Node
	old  []byte
	got  []byte // the content found
}

// diff returns how the files on the mount differ from the tree; nil if they do not. The file of d,
// if d is not nil, may be torn.
func (t *Tree) diff(mnt string, w int, d *data) error {
	found := map[string]bool{}
	tops, err := filepath.Glob(filepath.Join(mnt, Shared, WorkerDir(w)+"-*"))
	if err != nil {
		return err
	}
	for _, top := range append(tops, filepath.Join(mnt, WorkerDir(w))) {
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
		if t.At(name) == nil {
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
		if want := t.Nlink(name); uint64(st.Nlink) != want {
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

// diff returns how the file at path p, of size bytes, differs from the node.
func (n *Node) diff(p string, size int64, d *data) error {
	switch {
	case n.Is(unix.S_IFREG):
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
	case n.Is(unix.S_IFLNK):
		if got, err := os.Readlink(p); err != nil || got != string(n.Data) {
			return fmt.Errorf("its target is %q, want %q (%v)", got, n.Data, err)
		}
		return nil // a symbolic link has no user.* attributes
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
