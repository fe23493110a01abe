package explore

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// action is one operation on the fixed names of tree.
type action struct {
	kind, name string
	writes     string // path of the file whose data a crash may leave torn; "": none
	do         func(w *world)
	rare       bool // counts as rare although its kind is common
}

// commonest lists the kinds of operations for which a default run explores all ordered pairs.
var commonest = []string{"create", "mkdir", "unlink", "rmdir", "rename", "link", "symlink", "append", "overwrite", "truncate", "punch", "setxattr"}

// actions returns all operations on those names of tree that matter: the same file by both its
// links, a file in another directory, an empty one, directories at both levels.
func actions() []action {
	write := func(kind, path string, off int64, n int) action {
		return action{kind: kind, name: fmt.Sprintf("%s %s at %d", kind, path, off), writes: path, do: func(w *world) { w.write(path, off, fill(int(off)+n, n)) }}
	}
	act := func(kind, what string, do func(w *world)) action {
		return action{kind: kind, name: kind + " " + what, do: do}
	}
	rare := func(row action) action {
		row.rare = true
		return row
	}
	rename := func(from, to string, flags uint32) action {
		how := map[uint32]string{0: "", fs.RenameNoReplace: " noreplace", fs.RenameExchange: " exchange", fs.RenameWhiteout: " whiteout"}[flags]
		return act("rename", from+" "+to+how, func(w *world) { w.rename(from, to, flags) })
	}
	return []action{
		act("create", "d/new", func(w *world) { w.create("d/new") }),
		act("create", "e/g", func(w *world) { w.create("e/g") }),
		act("mkdir", "d/new", func(w *world) { w.mkdir("d/new") }),
		act("mkdir", "empty/in", func(w *world) { w.mkdir("empty/in") }),
		act("unlink", "d/g", func(w *world) { w.unlink("d/g") }),
		act("unlink", "f", func(w *world) { w.unlink("f") }),
		act("unlink", "e/f2", func(w *world) { w.unlink("e/f2") }),
		act("unlink", "d/g while open", func(w *world) { w.at("d/g").open = true; w.unlink("d/g") }),
		act("rmdir", "d/sub", func(w *world) { w.rmdir("d/sub") }),
		act("rmdir", "empty", func(w *world) { w.rmdir("empty") }),
		rename("f", "d/g", 0),
		rename("d/g", "e/g", 0),
		rename("d/g", "f", 0),
		rename("d/sub", "empty", 0),
		rename("d/sub", "e/sub", 0),
		act("link", "d/g d/new", func(w *world) { w.link("d/g", "d/new") }),
		act("link", "f e/g", func(w *world) { w.link("f", "e/g") }),
		act("symlink", "d/new", func(w *world) { w.symlink("d/new", "../f") }),
		write("append", "f", 10000, 5000),
		write("append", "d/g", 300, 100),
		write("append", "e/h", 0, 9000),
		write("overwrite", "f", 100, 3000),
		write("overwrite", "d/g", 3, 5),
		act("truncate", "f 5000", func(w *world) { w.truncate("f", 5000) }),
		act("truncate", "f 0", func(w *world) { w.truncate("f", 0) }),
		act("truncate", "d/g 9000", func(w *world) { w.truncate("d/g", 9000) }),
		act("punch", "f", func(w *world) { w.fallocate("f", punch, 4096, 4096) }),
		act("punch", "d/g", func(w *world) { w.fallocate("d/g", punch, 0, 4096) }),
		act("setxattr", "f", func(w *world) { w.setxattr("f", "user.a", []byte("value")) }),
		act("setxattr", "d/g long", func(w *world) { w.setxattr("d/g", "user.b", fill(5, 5000)) }),
		// The rarer ones.
		act("chmod", "f", func(w *world) { w.chmod("f", 0o600) }),
		act("chown", "d/g", func(w *world) { w.setattr("d/g", fs.SetAttr{Valid: fs.SetUID, UID: 9}) }),
		act("fallocate", "d/g", func(w *world) { w.fallocate("d/g", keep, 0, 50000) }),
		act("zero", "f", func(w *world) { w.fallocate("f", zero, 4096, 4096) }),
		act("clone", "f e/h", func(w *world) { w.clone("f", 0, "e/h", 0, 8192) }),
		act("clone", "f d/g", func(w *world) { w.clone("f", 4096, "d/g", 4096, 4096) }),
		act("mknod", "d/new", func(w *world) { w.mknod("d/new", syscall.S_IFIFO|0o644, 0) }),
		act("tmpfile", "d", func(w *world) { w.tmpfile("d") }),
		act("removexattr", "f", func(w *world) {
			can(w.at("f").xattrs["user.a"] != "", "f has no attribute")
			w.removexattr("f", "user.a")
		}),
		act("setacl", "d/g", func(w *world) { w.setxattr("d/g", aclAccess, aclOf(2)); w.adopt("d/g") }),
		act("utimens", "f", func(w *world) { w.setattr("f", fs.SetAttr{Valid: fs.SetAtime | fs.SetMtime, Atime: 5, Mtime: 6}) }),
		act("chattr", "d/g", func(w *world) { w.chattr("d/g", layout.FlagNoDump) }),
		act("fsync", "f", func(w *world) {
			n := w.at("f")
			if w.f != nil {
				must("fsync", w.f.Fsync(&w.ctx, n.ino, false))
			}
		}),
		rare(act("mkdir", "e, a long name", func(w *world) { w.mkdir("e/" + strings.Repeat("n", 255)) })),
		rare(act("link", "d/g e, a long name", func(w *world) { w.link("d/g", "e/"+strings.Repeat("m", 200)) })),
		rare(rename("f", "f9", fs.RenameWhiteout)),
		rare(rename("d/g", "e/h", fs.RenameWhiteout)),
		rare(rename("d/g", "f9", fs.RenameNoReplace)),
		rename("f", "d", fs.RenameExchange),
		rename("d/g", "e/h", fs.RenameExchange),
		act("tmpfile", "d, linked as e/g", func(w *world) { w.name(w.tmpfile("d"), "e/g") }),
		act("forget", "a file that is unlinked and open", func(w *world) {
			can(len(w.held) > 0, "it is forgotten already")
			w.forget(w.held[0])
			w.held = w.held[1:]
		}),
		act("compact", "", func(w *world) {
			// After a compaction, or without a free block, it moves nothing. The workload "compact"
			// shows that it moves blocks otherwise.
			if w.f != nil {
				_, errno := w.f.Compact(&w.ctx)
				must("compact", errno)
			}
		}),
	}
}

// need makes the files that some actions require besides tree.
func need(w *world, acts ...action) {
	has := func(kind string) bool {
		return slices.ContainsFunc(acts, func(a action) bool { return a.kind == kind })
	}
	if has("compact") {
		crowded(w)
	}
	if has("forget") { // after crowded, which remounts
		w.create("gone")
		w.write("gone", 0, fill(8, 9000))
		w.at("gone").open = true
		w.unlink("gone")
	}
}

// plainTree returns the model of tree.
var plainTree = sync.OnceValue(func() *node {
	w := &world{root: newTree(), rec: &recorder{}}
	tree(w)
	return w.root
})

// possible reports whether the model allows the actions in this order.
func possible(acts ...action) (ok bool) {
	w := &world{root: plainTree().clone(), rec: &recorder{}}
	defer func() {
		if e := recover(); e != nil {
			if _, is := e.(impossible); !is {
				panic(e)
			}
			ok = false
		}
	}()
	need(w, acts...)
	for _, a := range acts {
		a.do(w)
	}
	return true
}

// inTurn returns a workload that explores the last action after the others.
func inTurn(acts ...action) Workload {
	name := acts[0].name
	for _, a := range acts[1:] {
		name += ", " + a.name
	}
	last := acts[len(acts)-1]
	return Workload{Name: name, bare: true, setup: func(w *world) {
		tree(w)
		need(w, acts...)
		for _, a := range acts[:len(acts)-1] {
			a.do(w)
		}
	}, op: func(w *world) {
		w.do(last.name, func() { last.do(w) })
		if last.writes != "" {
			w.torn(last.writes)
		}
	}}
}

// pairs returns workloads of all possible ordered pairs of actions. In common, both are of the
// commonest kinds.
func pairs() (common, rare []Workload) {
	common2 := map[string]bool{}
	for _, k := range commonest {
		common2[k] = true
	}
	for _, a := range actions() {
		for _, b := range actions() {
			switch {
			case !possible(a, b):
			case common2[a.kind] && common2[b.kind] && !a.rare && !b.rare:
				common = append(common, inTurn(a, b))
			default:
				rare = append(rare, inTurn(a, b))
			}
		}
	}
	return common, rare
}

// triples returns up to n possible ordered triples, chosen by seed.
func triples(seed uint64, n int) (ws []Workload) {
	acts := actions()
	r := rnd(seed ^ 0x3333)
	seen := map[[3]int]bool{}
	for tries := 0; len(ws) < n && tries < 20*n; tries++ {
		i := [3]int{r.n(len(acts)), r.n(len(acts)), r.n(len(acts))}
		if seen[i] || !possible(acts[i[0]], acts[i[1]], acts[i[2]]) {
			continue
		}
		seen[i] = true
		ws = append(ws, inTurn(acts[i[0]], acts[i[1]], acts[i[2]]))
	}
	return ws
}

// sampled returns n of ws, chosen by seed; all of them if n < 0.
func sampled(ws []Workload, seed uint64, n int) []Workload {
	r := rnd(seed ^ uint64(len(ws)))
	ws = slices.Clone(ws)
	for n >= 0 && len(ws) > n {
		i := r.n(len(ws))
		ws[i] = ws[len(ws)-1]
		ws = ws[:len(ws)-1]
	}
	return ws
}

// Scope is the number of workloads of each composed kind; < 0: all.
type Scope struct {
	Rare    int // pairs with an operation that is not of the commonest kinds
	Triples int
	Once    int // pairs of operations at once, with Orders schedules each
	Orders  int
	Full    int
}

// The scopes of the default run and of the full run.
var (
	DefaultScope = Scope{Rare: 60, Triples: 60, Once: 80, Orders: 1, Full: 50}
	FullScope    = Scope{Rare: -1, Triples: 2000, Once: -1, Orders: 4, Full: -1}
)

// Workloads returns all single operations, all pairs of the commonest kinds, and samples of the
// other kinds, as sc says, chosen by seed. The same arguments give the same workloads.
func Workloads(seed uint64, sc Scope) []Workload {
	ws := append(append(singles(), repairs()...), atomics()...)
	alone := len(ws)
	common, rare := pairs()
	ws = append(ws, common...)
	ws = append(ws, sampled(rare, seed, sc.Rare)...)
	ws = append(ws, triples(seed, sc.Triples)...)
	ws = append(ws, sampled(together(seed, sc.Orders), seed, sc.Once)...)
	ws = append(ws, sampled(whenFull(), seed, sc.Full)...)
	for i := range ws[alone:] {
		ws[alone+i].composed = true
	}
	return ws
}
