package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// walkStep matches a function as docs/architecture.md names it: fs.(*FS).Write, transport.serve.
var walkStep = regexp.MustCompile("`([a-z]+)\\.(?:\\(\\*?([A-Za-z]+)\\)\\.)?([A-Za-z0-9]+)`")

// TestWalk checks the walks of docs/architecture.md, from write(2) to the media, and of a grant on
// both sides: each function that a numbered list names exists and, except for the first, is called
// by one named before it.
func TestWalk(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root(t), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	funcs := functions(t)
	for _, w := range []struct {
		heading string
		least   int // steps
	}{{"## The journey of one write(2)", 12}, {"### In the program", 10}, {"### In the daemon", 12}} {
		t.Run(strings.Trim(w.heading, "# "), func(t *testing.T) {
			_, text, _ := strings.Cut(string(doc), "\n"+w.heading+"\n")
			_, list, ok := strings.Cut(text, "\n1. ")
			if list, _, _ = strings.Cut(list, "\n\n"); !ok {
				t.Fatalf("docs/architecture.md has no numbered list in %q", w.heading)
			}
			checkWalk(t, funcs, list, w.least)
		})
	}
}

// checkWalk checks one list, which names at least so many functions.
func checkWalk(t *testing.T, funcs map[string]*ast.FuncDecl, list string, least int) {
	called := map[string]bool{}
	steps := 0
	for _, m := range walkStep.FindAllStringSubmatch(list, -1) {
		f, ok := funcs[m[1]+"."+m[2]+"."+m[3]]
		if !ok {
			t.Errorf("the walk names %s, which does not exist", m[0])
			continue
		}
		if steps++; steps > 1 && !called[m[3]] {
			t.Errorf("the walk names %s, which none of the functions before it calls", m[0])
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				switch fun := c.Fun.(type) {
				case *ast.Ident:
					called[fun.Name] = true
				case *ast.SelectorExpr:
					called[fun.Sel.Name] = true
				}
			}
			return true
		})
	}
	if steps < least {
		t.Errorf("the walk names %d functions: the test looks in the wrong place", steps)
	}
}

// functions returns the functions of the module, except those of tests, by package, receiver and
// name.
func functions(t *testing.T) map[string]*ast.FuncDecl {
	all := map[string]*ast.FuncDecl{}
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			receiver := ""
			if fn.Recv != nil {
				typ := fn.Recv.List[0].Type
				if p, ok := typ.(*ast.StarExpr); ok {
					typ = p.X
				}
				if id, ok := typ.(*ast.Ident); ok {
					receiver = id.Name
				}
			}
			all[f.ast.Name.Name+"."+receiver+"."+fn.Name.Name] = fn
		}
	}
	return all
}
