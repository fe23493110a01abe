package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/daxfsd/daxfsd"

// layer is the position of a folder in the layering. Imports go to a larger number only; refcnt and
// hugepage are in the same layer.
var layer = map[string]int{
	"cmd": 0, "fs": 1, "direct": 2, "pagecache": 2, "refcnt": 3, "hugepage": 3, "pmem": 4,
}

// leaves are packages with the packages of the module that each may import. The core imports those
// below fs, and no other subpackage of fs.
var leaves = map[string][]string{
	"fs/layout":    nil,
	"fs/posixacl":  nil,
	"fs/rangelock": nil,
	"fs/dirindex":  {"fs/layout"},
	"fs/badmem":    {"fs/layout", "pmem"},
	"fs/format":    {"fs/layout", "pmem"},
	"fs/journal":   {"fs/layout", "pmem"},
	"fs/metaspace": {"fs/journal", "fs/layout"},
	"fs/lease":     {"direct/protocol", "refcnt"},
	"fs/owner":     {"fs/layout", "pmem"},

	"direct":          {"direct/protocol", "pmem"},
	"direct/protocol": nil,
}

// beside are the folders that may import all packages and that no package may import.
var beside = map[string]bool{"bench": true, "test": true, "deploy": true}

// file is one Go file of the module.
type file struct {
	name    string // slash-separated, from the module's root
	dir     string
	top     string // first folder of dir
	test    bool
	imports []string
	ast     *ast.File
	set     *token.FileSet
	src     []byte
	lines   int
}

func root(t *testing.T) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// walk calls f for every file of the module, except hidden files and those in testdata and bin.
func walk(t *testing.T, f func(abs, name string)) {
	top := root(t)
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && p != top && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin") {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			rel, _ := filepath.Rel(top, p)
			f(p, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var parsed []*file // the result of goFiles

// goFiles parses the module's Go files, once for all tests.
func goFiles(t *testing.T) []*file {
	if parsed != nil {
		return parsed
	}
	var all []*file
	walk(t, func(abs, name string) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		src, err := os.ReadFile(abs)
		if err != nil {
			t.Fatal(err)
		}
		f := &file{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), set: token.NewFileSet(), src: src,
			lines: bytes.Count(src, []byte("\n"))}
		f.top, _, _ = strings.Cut(name, "/")
		if f.ast, err = parser.ParseFile(f.set, name, src, parser.ParseComments); err != nil {
			t.Fatal(err)
		}
		for _, s := range f.ast.Imports {
			p, _ := strconv.Unquote(s.Path.Value)
			f.imports = append(f.imports, p)
		}
		all = append(all, f)
	})
	if len(all) < 20 {
		t.Fatalf("found only %d Go files: the test looks in the wrong place", len(all))
	}
	parsed = all
	return all
}

// mayImport judges an import inside the module. It returns "" if the import is allowed, otherwise
// the reason.
func mayImport(from, to string) string {
	ft, _, _ := strings.Cut(from, "/")
	tt, _, _ := strings.Cut(to, "/")
	switch {
	case tt == "internal":
		return ""
	case ft == "internal":
		return "internal/ is below all others and imports no other package of the module"
	case beside[tt] && ft != tt:
		return fmt.Sprintf("no package imports %s/: move what is needed into the package it belongs to", tt)
	case beside[ft]:
		return ""
	}
	if below, leaf := leaves[from]; leaf && !slices.Contains(below, to) {
		return fmt.Sprintf("%s is a leaf and imports only %q of the module", from, below)
	}
	fr, ok1 := layer[ft]
	tr, ok2 := layer[tt]
	switch {
	case !ok1 || !ok2:
		return "this folder is not in the layering: put the code into a folder that is"
	case ft == "cmd" && tt == "cmd":
		return "commands do not import each other"
	case ft == "fs" && tt == "fs":
		if to == "fs/fusefs" {
			return "the core knows no FUSE: fs/fusefs imports the core, not the other way round"
		}
		if _, leaf := leaves[to]; from == "fs" && !leaf {
			return "the core imports only those of its subpackages that are leaves"
		}
		return ""
	case ft == tt:
		return "" // subpackages of one layer
	case fr == tr:
		return fmt.Sprintf("%s and %s are in the same layer: let the caller in fs/ pass the value", ft, tt)
	case fr > tr:
		return fmt.Sprintf("imports go down the layers and %s is above %s: return a value or take a function instead", tt, ft)
	}
	return ""
}

// TestImportsRunDown checks that every import inside the module is allowed.
func TestImportsRunDown(t *testing.T) {
	for _, f := range goFiles(t) {
		if !strings.Contains(f.name, "/") {
			t.Errorf("%s: the module's root holds no Go files: put it into a folder of the layering", f.name)
			continue
		}
		for _, p := range f.imports {
			to, inside := strings.CutPrefix(p, module+"/")
			if !inside || f.dir == to { // an external test imports its own package
				continue
			}
			if to == "pmem" && f.test { // tests of every package may make a region
				continue
			}
			if to == "fs/fsck" && strings.HasSuffix(f.ast.Name.Name, "_test") { // external tests may run the checker
				continue
			}
			if to == "fs/fstest" {
				if !f.test {
					t.Errorf("%s imports %s: only tests may", f.name, p)
				}
				continue
			}
			if why := mayImport(f.dir, to); why != "" {
				t.Errorf("%s imports %s: %s", f.name, p, why)
			}
		}
	}
}

// TestMayImport tests the judge, with allowed and forbidden imports.
func TestMayImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"cmd/daxfsd", "fs", true}, {"cmd/daxfsd", "pmem", true}, {"fs", "cmd/daxfsd", false},
		{"fs", "pagecache", true}, {"pagecache", "fs", false}, {"pagecache", "refcnt", true},
		{"refcnt", "hugepage", false}, {"hugepage", "refcnt", false}, {"hugepage", "pmem", true},
		{"pmem", "hugepage", false}, {"pmem", "internal/invariants", true}, {"internal/invariants", "pmem", false},
		{"fs", "fs/layout", true}, {"fs", "fs/journal", true}, {"fs/metaspace", "fs/journal", true}, {"fs/metaspace", "pmem", false}, {"fs/journal", "fs/metaspace", false}, {"fs", "fs/badmem", true}, {"fs/journal", "fs/layout", true}, {"fs/journal", "pmem", true},
		{"fs/journal", "fs", false}, {"fs/journal", "hugepage", false}, {"fs/journal", "fs/badmem", false}, {"fs/badmem", "fs/journal", false},
		{"fs", "fs/transport", false}, {"fs", "fs/owner", true}, {"fs/fsck", "fs/owner", true}, {"fs/owner", "fs/layout", true}, {"fs/owner", "fs/fsck", false}, {"fs/owner", "fs", false}, {"fs/owner", "pmem", true}, {"fs/owner", "refcnt", false}, {"fs", "fs/posixacl", true},
		{"fs/posixacl", "fs/layout", false}, {"fs/rangelock", "pmem", false}, {"fs/dirindex", "fs/layout", true}, {"fs/dirindex", "pmem", false}, {"fs/layout", "fs", false}, {"fs", "fs/fusefs", false},
		{"fs/fusefs", "fs", true}, {"fs/fsck", "fs", true}, {"fs", "fs/fsck", false}, {"fs/fsck", "fs/fusefs", false},
		{"test/crash", "fs", true}, {"fs", "test/crash", false}, {"bench", "pmem", true}, {"bench", "test/crash", false},
		{"elsewhere", "pmem", false},
	} {
		if why := mayImport(c.from, c.to); (why == "") != c.ok {
			t.Errorf("%s imports %s: judged %q", c.from, c.to, why)
		}
	}
}

// TestForeignImports checks that other modules are imported only where they belong.
func TestForeignImports(t *testing.T) {
	rules := []struct {
		prefix string
		where  func(f *file) bool
		why    string
	}{
		{"go.uber.org/zap", func(f *file) bool { return f.top == "cmd" },
			"logging belongs to cmd/: return an error, or take a Warn function"},
		{"log", func(f *file) bool { return f.top == "cmd" || f.dir == "fs/fusefs" || beside[f.top] },
			"logging belongs to cmd/: return an error, or take a Warn function"},
		{"github.com/hanwen/go-fuse", func(f *file) bool { return f.dir == "fs/fusefs" || beside[f.top] },
			"FUSE belongs to fs/fusefs: the core speaks syscall.Errno"},
		{"github.com/edsrzf/mmap-go", func(f *file) bool { return f.top == "pmem" },
			"only pmem maps: take a *pmem.Region"},
		{"github.com/spf13/", func(f *file) bool { return f.top == "cmd" || beside[f.top] },
			"command lines belong to cmd/"},
		{"github.com/vbauerster/mpb", func(f *file) bool { return f.top == "cmd" || beside[f.top] },
			"progress bars belong to cmd/: take a Progress function"},
		{"charm.land/", func(f *file) bool { return f.top == "cmd" || beside[f.top] },
			"drawing on a terminal belongs to cmd/: return figures"},
		{"C", func(*file) bool { return false }, "no cgo: the binary is static"},
		{"unsafe", func(f *file) bool { return unsafeName(f.name) },
			"unsafe code lives in files called *_unsafe.go"},
		{"reflect", func(f *file) bool { return f.test || f.top != "pmem" && f.top != "refcnt" && f.top != "pagecache" },
			"not on the hot path"},
	}
	for _, f := range goFiles(t) {
		for _, p := range f.imports {
			for _, r := range rules {
				if (p == r.prefix || strings.HasPrefix(p, strings.TrimSuffix(r.prefix, "/")+"/")) && !r.where(f) {
					t.Errorf("%s imports %s: %s", f.name, p, r.why)
				}
			}
			if f.dir == "fs/layout" && !f.test && strings.Contains(p, ".") {
				t.Errorf("%s imports %s: fs/layout is pure encoding, the standard library is enough", f.name, p)
			}
		}
	}
}

// unsafeName reports whether a file's name is like x_unsafe.go, x_unsafe_test.go or
// x_unsafe_amd64.go.
func unsafeName(name string) bool {
	base := strings.TrimSuffix(path.Base(name), ".go")
	return strings.HasSuffix(base, "_unsafe") || strings.Contains(base, "_unsafe_") || base == "unsafe"
}

// TestMappingsAndAssembly checks that only pmem maps memory and has assembly. The exceptions are
// refcnt's table, pagecache, and the rings and requests of fs/transport: they are in anonymous
// memory outside the Go heap, mapped by a call in a *_unsafe.go file.
func TestMappingsAndAssembly(t *testing.T) {
	calls := map[string]bool{"Mmap": true, "MmapPtr": true, "Munmap": true, "MunmapPtr": true, "SYS_MMAP": true, "Mprotect": true}
	for _, f := range goFiles(t) {
		if f.top == "pmem" || beside[f.top] || f.test || unsafeName(f.name) && (f.top == "refcnt" || f.top == "pagecache" || f.dir == "fs/transport") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && (x.Name == "unix" || x.Name == "syscall") && calls[s.Sel.Name] {
				t.Errorf("%s: %s.%s: only pmem maps: take a *pmem.Region", f.set.Position(s.Pos()), x.Name, s.Sel.Name)
			}
			return true
		})
	}
	walk(t, func(_, name string) {
		if strings.HasSuffix(name, ".s") && !strings.HasPrefix(name, "pmem/") {
			t.Errorf("%s: assembly belongs to pmem/, with a portable twin", name)
		}
	})
}

// TestFilesAndPackages checks that no file has a vague name or too many lines, and that every
// package says what it owns.
func TestFilesAndPackages(t *testing.T) {
	vague := map[string]bool{"utils": true, "util": true, "helpers": true, "helper": true, "common": true, "types": true, "misc": true}
	hasDoc, isPackage := map[string]bool{}, map[string]bool{}
	for _, f := range goFiles(t) {
		base := strings.TrimSuffix(strings.TrimSuffix(path.Base(f.name), ".go"), "_test")
		if vague[base] {
			t.Errorf("%s: a file is a noun or a family of operations: name it after what it holds", f.name)
		}
		if !f.test {
			isPackage[f.dir] = true
		}
		if b := path.Base(f.name); b == "doc.go" || b == "main.go" && f.ast.Name.Name == "main" {
			hasDoc[f.dir] = hasDoc[f.dir] || f.ast.Doc != nil
		}
		if f.lines > 800 && (f.ast.Doc == nil && len(f.ast.Comments) == 0 || !strings.Contains(f.ast.Comments[0].Text(), "long because")) {
			t.Errorf("%s has %d lines: split it, or say \"long because\" in its head", f.name, f.lines)
		}
	}
	for dir := range isPackage {
		if !hasDoc[dir] {
			t.Errorf("%s has no doc.go with a package comment: say what it owns and what it never does", dir)
		}
	}
}
