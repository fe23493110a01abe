package random

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A node is the model of an inode in a private subtree.
type node struct {
	Type   uint32 // S_IF*; S_IFCHR: a whiteout
	Mode   uint32
	UID    int
	GID    int
	Mtime  int64 // the value in seconds that it was set to; 0: unknown
	Data   []byte
	Target string
	Xattr  map[string][]byte
}

// A tree is the exact model of a private subtree. Names are paths below the subtree's root, which
// is ".".
type tree struct {
	Names map[string]int // name to key of Nodes
	Nodes map[int]*node
	Next  int
}

func newTree() *tree {
	return &tree{Names: map[string]int{}, Nodes: map[int]*node{}, Next: 1}
}

func (t *tree) at(name string) *node {
	if name == "." {
		return &node{Type: unix.S_IFDIR}
	}
	return t.Nodes[t.Names[name]] // no node has number 0
}

func (t *tree) add(name string, n *node) {
	t.Names[name], t.Nodes[t.Next] = t.Next, n
	t.Next++
}

// drop removes a name, and with its last name the node.
func (t *tree) drop(name string) {
	id := t.Names[name]
	delete(t.Names, name)
	if t.links(id) == 0 {
		delete(t.Nodes, id)
	}
}

// links returns the number of names of a node.
func (t *tree) links(id int) (n int) {
	for _, i := range t.Names {
		if i == id {
			n++
		}
	}
	return n
}

// children returns the sorted names in a directory.
func (t *tree) children(dir string) (l []string) {
	for name := range t.Names {
		if path.Dir(name) == dir {
			l = append(l, path.Base(name))
		}
	}
	slices.Sort(l)
	return l
}

// move renames from, with all names below it.
func (t *tree) move(from, to string) {
	for name, id := range maps.Clone(t.Names) {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			delete(t.Names, name)
			t.Names[to+"/"+rest] = id
		}
	}
	id := t.Names[from]
	delete(t.Names, from)
	t.Names[to] = id
}

// verify compares one name with the model.
func (t *tree) verify(root, name string) error {
	full := filepath.Join(root, name)
	n := t.at(name)
	var stat unix.Stat_t
	err := do(func() error { return unix.Lstat(full, &stat) })
	if n == nil {
		if err != unix.ENOENT {
			return fmt.Errorf("%s: stat says %v, and it must not be there", full, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("stat %s: %w", full, err)
	}
	if stat.Mode&unix.S_IFMT != n.Type {
		return fmt.Errorf("%s: type %o, want %o", full, stat.Mode&unix.S_IFMT, n.Type)
	}
	if n.Type == unix.S_IFDIR {
		names, err := list(full)
		if err != nil {
			return fmt.Errorf("readdir %s: %w", full, err)
		}
		slices.Sort(names)
		kids := t.children(name)
		if !slices.Equal(names, kids) {
			return fmt.Errorf("readdir %s: %v, want %v", full, names, kids)
		}
		want := uint64(2)
		for _, kid := range kids {
			if t.at(path.Join(name, kid)).Type == unix.S_IFDIR {
				want++
			}
		}
		if uint64(stat.Nlink) != want {
			return fmt.Errorf("%s: %d links, want %d", full, stat.Nlink, want)
		}
	} else if links := t.links(t.Names[name]); int(stat.Nlink) != links {
		return fmt.Errorf("%s: %d links, want %d", full, stat.Nlink, links)
	}
	if name == "." {
		return nil
	}
	switch n.Type {
	case unix.S_IFLNK:
		buf := make([]byte, 300)
		count, err := retry(func() (int, error) { return unix.Readlink(full, buf) })
		if err != nil || string(buf[:count]) != n.Target {
			return fmt.Errorf("readlink %s: %q, %v, want %q", full, buf[:max(count, 0)], err, n.Target)
		}
		return nil
	case unix.S_IFCHR:
		if stat.Rdev != 0 {
			return fmt.Errorf("%s: device %d, want a whiteout", full, stat.Rdev)
		}
		return nil
	}
	if stat.Mode&0o7777 != n.Mode || int(stat.Uid) != n.UID || int(stat.Gid) != n.GID {
		return fmt.Errorf("%s: mode %o of %d:%d, want %o of %d:%d", full, stat.Mode&0o7777, stat.Uid, stat.Gid, n.Mode, n.UID, n.GID)
	}
	if n.Mtime != 0 && stat.Mtim.Sec != n.Mtime {
		return fmt.Errorf("%s: mtime %d, want %d", full, stat.Mtim.Sec, n.Mtime)
	}
	if n.Type == unix.S_IFREG {
		if stat.Size != int64(len(n.Data)) {
			return fmt.Errorf("%s: %d bytes, want %d", full, stat.Size, len(n.Data))
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return err
		}
		if diff := differs(0, content, n.Data); diff != "" {
			return fmt.Errorf("%s: %s", full, diff)
		}
	}
	return n.verifyXattrs(full)
}

func (n *node) verifyXattrs(full string) error {
	b := make([]byte, 64<<10)
	k, err := retry(func() (int, error) { return unix.Listxattr(full, b) })
	if err != nil {
		return fmt.Errorf("listxattr %s: %w", full, err)
	}
	var got []string
	for _, s := range strings.Split(string(b[:k]), "\x00") {
		if strings.HasPrefix(s, "user.") {
			got = append(got, s)
		}
	}
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(n.Xattr)); !slices.Equal(got, want) {
		return fmt.Errorf("listxattr %s: %v, want %v", full, got, want)
	}
	for name, want := range n.Xattr {
		k, err := retry(func() (int, error) { return unix.Getxattr(full, name, b) })
		if err != nil || !bytes.Equal(b[:k], want) {
			return fmt.Errorf("getxattr %s %s: %d bytes, %v, want %d", full, name, k, err, len(want))
		}
	}
	return nil
}

// all verifies the whole tree.
func (t *tree) all(root string) error {
	if err := t.verify(root, "."); err != nil {
		return err
	}
	for name := range t.Names {
		if err := t.verify(root, name); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names that readdir reports in a directory.
func list(dir string) ([]string, error) {
	fd, err := retry(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var e unix.Errno
	if errors.As(err, &e) {
		err = e // the bare errno: ENOENT if the directory was removed after it was opened
	}
	return names, err
}
