package oracle

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Op is one system call. Names are relative to the mount.
type Op struct {
	N    int    // number of the call in the worker's round
	Kind string // an element of calls
	A    string
	B    string `json:",omitempty"` // second name, target, or attribute
	From int64  `json:",omitempty"` // copy: source offset in A, in bytes
	Off  int64  `json:",omitempty"` // bytes
	Len  int64  `json:",omitempty"` // bytes
	Seed uint64 `json:",omitempty"` // seed of the data, see Fill
	Skip int64  `json:",omitempty"` // bytes of the data that an earlier call wrote
	Mode uint32 `json:",omitempty"` // permissions, or the mode of fallocate
	Hold bool   `json:",omitempty"` // unlink: the file stays open
}

// Fill returns n bytes that depend on seed.
func Fill(seed uint64, n int64) []byte {
	b := make([]byte, n+7)
	for i := int64(0); i < n; i += 8 {
		seed += 0x9e3779b97f4a7c15
		x := (seed ^ seed>>30) * 0xbf58476d1ce4e5b9
		binary.LittleEndian.PutUint64(b[i:], x^x>>29)
	}
	return b[:n]
}

// data returns the bytes that the call stores; nil for calls without data.
func (o Op) data() []byte {
	switch o.Kind {
	case "write", "append", "setxattr":
		return Fill(o.Seed, o.Skip+o.Len)[o.Skip:]
	}
	return nil
}

// Target returns the path of the file whose data the call changes; "" for other calls and for
// truncate.
func (o Op) Target() string {
	switch o.Kind {
	case "write", "append", "fallocate":
		return o.A
	case "copy":
		return o.B
	}
	return ""
}

// Node is an inode of the model.
type Node struct {
	Mode  uint32 // type and permissions
	Data  []byte // content, or target of a symbolic link
	Xattr map[string][]byte
}

// Is reports whether the node is of the given type (S_IFREG and others).
func (n *Node) Is(format uint32) bool { return n.Mode&unix.S_IFMT == format }

// Tree is the model of the files that one worker must have.
type Tree struct {
	Nodes map[int]*Node
	Names map[string]int // keys of Nodes, by path
	Next  int
}

// Shared is the directory, below the root, in which every worker has names of its own.
const Shared = "shared"

// WorkerDir returns the name of worker w's directory, below the root like Shared.
func WorkerDir(w int) string { return fmt.Sprintf("w%d", w) }

// New returns the tree of worker w with an empty directory.
func New(w int) *Tree {
	t := &Tree{Nodes: map[int]*Node{}, Names: map[string]int{}}
	t.Add(WorkerDir(w), unix.S_IFDIR|0o755, nil)
	return t
}

// Load reads a tree that Save wrote.
func Load(name string) (*Tree, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := &Tree{}
	return t, gob.NewDecoder(f).Decode(t)
}

// Save writes the tree to a file.
func (t *Tree) Save(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return gob.NewEncoder(f).Encode(t)
}

// At returns the node with that name, or nil.
func (t *Tree) At(name string) *Node {
	if id, ok := t.Names[name]; ok {
		return t.Nodes[id]
	}
	return nil
}

// Add adds a new inode with that name.
func (t *Tree) Add(name string, mode uint32, data []byte) {
	t.Nodes[t.Next] = &Node{Mode: mode, Data: data}
	t.Names[name] = t.Next
	t.Next++
}

// Nlink returns the link count that name's inode must have.
func (t *Tree) Nlink(name string) (n uint64) {
	id := t.Names[name]
	if t.Nodes[id].Is(unix.S_IFDIR) {
		n = 2
		for other, o := range t.Names {
			if path.Dir(other) == name && t.Nodes[o].Is(unix.S_IFDIR) {
				n++
			}
		}
		return n
	}
	for _, o := range t.Names {
		if o == id {
			n++
		}
	}
	return n
}

// Drop removes a name, and with the last name its inode.
func (t *Tree) Drop(name string) {
	id := t.Names[name]
	delete(t.Names, name)
	for _, o := range t.Names {
		if o == id {
			return
		}
	}
	delete(t.Nodes, id)
}

// move renames from, with all names below it, to to.
func (t *Tree) move(from, to string) {
	moved := map[string]int{}
	for name, id := range t.Names {
		if below, ok := strings.CutPrefix(name, from+"/"); ok {
			delete(t.Names, name)
			moved[to+"/"+below] = id
		}
	}
	t.Names[to] = t.Names[from]
	delete(t.Names, from)
	maps.Copy(t.Names, moved)
}

// Apply changes the tree as the system call o did, which returned n.
func (t *Tree) Apply(call Op, n int64) {
	node := t.At(call.A)
	switch call.Kind {
	case "create":
		t.Add(call.A, unix.S_IFREG|call.Mode, nil)
	case "mkdir":
		t.Add(call.A, unix.S_IFDIR|call.Mode, nil)
	case "symlink":
		t.Add(call.A, unix.S_IFLNK|0o777, []byte(call.B))
	case "link":
		t.Names[call.B] = t.Names[call.A]
	case "unlink", "rmdir":
		t.Drop(call.A)
	case "rename":
		if t.At(call.B) == node {
			return // two names of one file: rename(2) does nothing
		}
		if t.At(call.B) != nil {
			t.Drop(call.B)
		}
		t.move(call.A, call.B)
	case "exchange":
		const aside = "/" // no file has this name
		t.move(call.A, aside)
		t.move(call.B, call.A)
		t.move(aside, call.B)
	case "write", "append":
		node.Grow(call.Off + n)
		copy(node.Data[call.Off:], call.data()[:n])
	case "truncate":
		if call.Len < int64(len(node.Data)) {
			node.Data = node.Data[:call.Len:call.Len]
		}
		node.Grow(call.Len)
	case "fallocate":
		if call.Mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
			node.Grow(call.Off + call.Len)
		}
		if call.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 && call.Off < int64(len(node.Data)) {
			clear(node.Data[call.Off:min(call.Off+call.Len, int64(len(node.Data)))])
		}
	case "copy":
		to := t.At(call.B)
		to.Grow(call.Off + n)
		copy(to.Data[call.Off:], t.At(call.A).Data[call.From:call.From+n])
	case "chmod":
		node.Mode = node.Mode&unix.S_IFMT | call.Mode
	case "setxattr":
		if node.Xattr == nil {
			node.Xattr = map[string][]byte{}
		}
		node.Xattr[call.B] = call.data()
	case "removexattr":
		delete(node.Xattr, call.B)
	case "fsync":
	default:
		panic("no call is named " + call.Kind)
	}
}

// Grow extends the data with zeros to at least size bytes.
func (n *Node) Grow(size int64) {
	if more := size - int64(len(n.Data)); more > 0 {
		n.Data = append(n.Data, make([]byte, more)...)
	}
}

// size returns the bytes that the files take, in whole blocks.
func (t *Tree) size() (n int64) {
	for _, f := range t.Nodes {
		n += (int64(len(f.Data)) + 4095) &^ 4095
	}
	return n
}

// Count returns the number of inodes of the given type.
func (t *Tree) Count(format uint32) (n uint64) {
	for _, f := range t.Nodes {
		if f.Is(format) {
			n++
		}
	}
	return n
}

// The number of a worker's names and the sizes of its files are limited, so that the filesystem
// ages at three quarters of its capacity and is never full.
const (
	RegionSize = 256 << 20 // minimum size of the region, in bytes
	Workers    = 4         // number of workers
	maxBytes   = RegionSize / Workers / 4 * 3
	maxFile    = 6 << 20
	maxNames   = 250
	maxHeld    = 256 << 10 // maximum size in bytes of a file that stays open without a name
)

// chooser chooses a worker's calls.
type chooser struct {
	*rand.Rand
	t     *Tree
	w     int
	n     int
	round int
	large bool     // mostly overwrite whole files: a crash is likely to cut a long call
	names []string // the names of t, sorted
}

// calls lists the kinds of calls. A kind is chosen as often as it occurs in the list.
var calls = slices.Concat(
	slices.Repeat([]string{"create"}, 10), slices.Repeat([]string{"mkdir"}, 3), slices.Repeat([]string{"symlink"}, 3),
	slices.Repeat([]string{"link"}, 5), slices.Repeat([]string{"rename"}, 12), slices.Repeat([]string{"exchange"}, 2),
	slices.Repeat([]string{"unlink"}, 8), slices.Repeat([]string{"rmdir"}, 4), slices.Repeat([]string{"write"}, 20),
	slices.Repeat([]string{"append"}, 14), slices.Repeat([]string{"truncate"}, 7), slices.Repeat([]string{"fallocate"}, 8),
	slices.Repeat([]string{"copy"}, 8), slices.Repeat([]string{"chmod"}, 4), slices.Repeat([]string{"setxattr"}, 6),
	slices.Repeat([]string{"removexattr"}, 2), slices.Repeat([]string{"fsync"}, 2),
)

// next chooses a call that will succeed.
func (c *chooser) next() Op {
	c.names = slices.Sorted(maps.Keys(c.t.Names))
	c.n++
	for {
		o := Op{N: c.n, Kind: c.kind(), A: c.names[c.IntN(len(c.names))], Seed: c.Uint64()}
		if c.complete(&o) {
			return o
		}
	}
}

func (c *chooser) kind() string {
	if c.large && c.IntN(2) == 0 {
		return "write"
	}
	return calls[c.IntN(len(calls))]
}

// complete fills in the rest of call o. It returns false if no call of that kind makes sense for
// o.A.
func (c *chooser) complete(call *Op) bool {
	node := c.t.At(call.A)
	file, dir, top := node.Is(unix.S_IFREG), node.Is(unix.S_IFDIR), call.A == WorkerDir(c.w)
	size := int64(len(node.Data))
	room := len(c.names) < maxNames
	space := maxBytes - c.t.size()
	switch call.Kind {
	case "create", "mkdir":
		call.A, call.Mode = c.fresh(), 0o400|uint32(c.IntN(0o1000))
		return room
	case "symlink":
		call.A, call.B = c.fresh(), strings.Repeat("target/", 1+c.IntN(400))
		return room
	case "link":
		call.B = c.fresh()
		return room && !dir
	case "unlink":
		call.Hold = file && size <= maxHeld && c.IntN(4) == 0
		return !dir
	case "rmdir":
		return dir && !top && c.empty(call.A)
	case "rename":
		call.B = c.fresh()
		if c.IntN(2) == 0 {
			call.B = c.names[c.IntN(len(c.names))]
			if other := c.t.At(call.B); other.Is(unix.S_IFDIR) != dir || dir && !c.empty(call.B) {
				return false
			}
		}
		return !top && call.B != WorkerDir(c.w) && c.apart(call.A, call.B)
	case "exchange":
		call.B = c.names[c.IntN(len(c.names))]
		return !top && call.B != WorkerDir(c.w) && c.apart(call.A, call.B) && c.apart(call.B, call.A) && c.t.At(call.B) != node
	case "write": // overwrites, and sometimes extends
		call.Len = c.length()
		call.Off = c.offset(size + size/8 + 1)
		if c.large {
			call.Off = c.offset(size/4 + 1)
			call.Len = size - call.Off
		}
		return file && size > 0 && call.Off+call.Len <= maxFile && call.Off+call.Len-size <= space
	case "append":
		call.Off, call.Len = size, c.length()
		return file && size+call.Len <= maxFile && call.Len <= space
	case "truncate":
		call.Len = c.offset(size + size/4 + 2)
		return file && call.Len <= maxFile && call.Len-size <= space
	case "fallocate":
		call.Off, call.Len = c.offset(size+1), c.length()
		call.Mode = []uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE}[c.IntN(5)]
		if call.Mode&unix.FALLOC_FL_KEEP_SIZE != 0 && call.Mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
			call.Len = min(call.Len, max(size-call.Off, 32<<10)) // size does not count blocks beyond the end of file
		}
		return file && call.Off+call.Len <= maxFile && call.Off+call.Len-size <= space
	case "copy":
		call.B = c.names[c.IntN(len(c.names))]
		to := c.t.At(call.B)
		call.From, call.Len = c.offset(size), c.length()
		call.Off = c.offset(int64(len(to.Data)) + 1)
		if c.IntN(3) > 0 { // whole blocks can be shared
			call.From, call.Off = call.From&^4095, call.Off&^4095
		}
		call.Len = min(call.Len, size-call.From)
		return file && size > 0 && to.Is(unix.S_IFREG) && to != node && call.Off+call.Len <= maxFile && call.Off+call.Len-int64(len(to.Data)) <= space
	case "chmod":
		call.Mode = 0o400 | uint32(c.IntN(0o1000))
		return file || dir
	case "setxattr":
		call.B, call.Len = fmt.Sprintf("user.k%d", c.IntN(6)), int64(1+c.IntN(200))
		if c.IntN(4) == 0 {
			call.Len = int64(1 + c.IntN(9000))
		}
		return file || dir
	case "removexattr":
		if len(node.Xattr) == 0 {
			return false
		}
		names := slices.Sorted(maps.Keys(node.Xattr))
		call.B = names[c.IntN(len(names))]
		return true
	case "fsync":
		return file
	}
	panic("no call is named " + call.Kind)
}

// fresh returns a new name in one of the worker's directories or in the shared one.
func (c *chooser) fresh() string {
	name := fmt.Sprintf("%d.%d", c.round, c.n)
	for {
		switch d := c.names[c.IntN(len(c.names))]; {
		case c.IntN(8) == 0:
			return Shared + "/" + WorkerDir(c.w) + "-" + name
		case c.t.At(d).Is(unix.S_IFDIR) && strings.Count(d, "/") < 6:
			return d + "/" + name
		}
	}
}

func (c *chooser) empty(dir string) bool {
	i, _ := slices.BinarySearch(c.names, dir+"/")
	return i == len(c.names) || !strings.HasPrefix(c.names[i], dir+"/")
}

// apart reports whether b is neither a nor below it.
func (c *chooser) apart(a, b string) bool { return a != b && !strings.HasPrefix(b, a+"/") }

// length returns the length of a write, in bytes: one in five less than a block, a few above 1 MiB,
// which is the limit of one FUSE request, otherwise 4 KiB to 1 MiB, half of these in whole blocks.
func (c *chooser) length() int64 {
	switch k := c.IntN(40); {
	case k < 8:
		return 1 + c.Int64N(4095)
	case k < 10:
		return 1<<20 + c.Int64N(3<<20)
	}
	n := int64(4096) << c.IntN(9)
	n = min(n+c.Int64N(n), 1<<20)
	if c.IntN(2) == 0 {
		n &^= 4095
	}
	return n
}

// offset returns an offset below limit, in bytes; half of the time at a block border.
func (c *chooser) offset(limit int64) int64 {
	n := c.Int64N(max(limit, 1))
	if c.IntN(2) == 0 {
		n &^= 4095
	}
	return n
}

// parted reports whether the 8 bytes of the file at byte off belong to two FUSE requests of a
// write. The kernel makes one request of every maxPages pages of the caller's buffer, whose data
// begins at a page border or Skip bytes later.
func (o Op) parted(off int64) bool {
	const page, maxPages = 4096, 256
	in := off - o.Off + o.Skip%page
	return (o.Kind == "write" || o.Kind == "append") && in/(maxPages*page) != (in+7)/(maxPages*page)
}

// torn returns what is wrong with the content got of a file that o was changing from old to want
// when the daemon died; "" if got is allowed.
func torn(o Op, old, want, got []byte) string {
	if len(got) < len(old) || len(got) > len(want) || len(got) > len(old) && int64(len(got)) <= o.Off {
		return fmt.Sprintf("%d bytes, want %d or, behind offset %d, up to %d", len(got), len(old), o.Off, len(want))
	}
	for i := 0; i < len(got); {
		// An aligned 8-byte word is old or new as a whole, if the old file had it and one request
		// covers it.
		n := 1
		if i%8 == 0 && i+8 <= len(old) && int64(i) >= o.Off && int64(i)+8 <= o.Off+o.Len && !o.parted(int64(i)) {
			n = 8
		}
		b := got[i : i+n]
		if !bytes.Equal(b, want[i:i+n]) && (i >= len(old) || !bytes.Equal(b, old[i:i+n])) {
			return fmt.Sprintf("at %d of %d: % x, new % x, old % x", i, len(got), b, want[i:i+n], old[min(i, len(old)):min(i+n, len(old))])
		}
		i += n
	}
	return ""
}
