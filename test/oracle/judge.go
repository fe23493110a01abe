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
func (t *Tree) diff(mnt string, worker int, tornFile *data) error {
	found := map[string]bool{}
	tops, err := filepath.Glob(filepath.Join(mnt, Shared, WorkerDir(worker)+"-*"))
	if err != nil {
		return err
	}
	for _, top := range append(tops, filepath.Join(mnt, WorkerDir(worker))) {
		err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
			name, _ := filepath.Rel(mnt, path)
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
		path := filepath.Join(mnt, name)
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil || !found[name] {
			return fmt.Errorf("%s: listed: %v; lstat: %w", name, found[name], err)
		}
		if stat.Mode != n.Mode {
			return fmt.Errorf("%s has mode %o, want %o", name, stat.Mode, n.Mode)
		}
		if want := t.Nlink(name); uint64(stat.Nlink) != want {
			return fmt.Errorf("%s has %d links, want %d", name, stat.Nlink, want)
		}
		if other, ok := nodes[stat.Ino]; ok && other != id {
			return fmt.Errorf("%s is inode %d, and so is another file", name, stat.Ino)
		}
		if ino, ok := inos[id]; ok {
			if ino != stat.Ino {
				return fmt.Errorf("%s is inode %d, and its other name inode %d", name, stat.Ino, ino)
			}
			continue
		}
		nodes[stat.Ino], inos[id] = id, stat.Ino
		if err := n.diff(path, stat.Size, tornFile); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// diff returns how the file at path p, of size bytes, differs from the node.
func (n *Node) diff(path string, size int64, tornFile *data) error {
	switch {
	case n.Is(unix.S_IFREG):
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if int64(len(got)) != size {
			return fmt.Errorf("its size is %d and %d bytes can be read", size, len(got))
		}
		if tornFile != nil && n == tornFile.node {
			tornFile.got = got
			if why := torn(tornFile.o, tornFile.old, n.Data, got); why != "" {
				return fmt.Errorf("torn: %s", why)
			}
		} else if !bytes.Equal(got, n.Data) {
			off := 0
			for off < min(len(got), len(n.Data)) && got[off] == n.Data[off] {
				off++
			}
			return fmt.Errorf("%d bytes, want %d; the first difference is at %d", len(got), len(n.Data), off)
		}
	case n.Is(unix.S_IFLNK):
		if got, err := os.Readlink(path); err != nil || got != string(n.Data) {
			return fmt.Errorf("its target is %q, want %q (%v)", got, n.Data, err)
		}
		return nil // a symbolic link has no user.* attributes
	}
	buf := make([]byte, 64<<10)
	length, err := unix.Llistxattr(path, buf)
	if err != nil {
		return fmt.Errorf("listing attributes: %w", err)
	}
	names := strings.FieldsFunc(string(buf[:length]), func(char rune) bool { return char == 0 })
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(n.Xattr)); !slices.Equal(names, want) {
		return fmt.Errorf("attributes %v, want %v", names, want)
	}
	for name, want := range n.Xattr {
		if valueLength, err := unix.Lgetxattr(path, name, buf); err != nil || !bytes.Equal(buf[:valueLength], want) {
			return fmt.Errorf("%s is not the value of %d bytes that was set (%v)", name, len(want), err)
		}
	}
	return nil
}
