package lint

import (
	"go/ast"
	"testing"
)

// The largest sizes allowed in the core. A larger file or function is split, not excused.
const (
	fileLines  = 500
	funcLines  = 80
	funcParams = 6 // without the receiver
	fsMethods  = 190
	fsFields   = 24
)

// core reports whether a file is in a package below cmd: the filesystem with its subpackages, and
// what it imports.
func core(f *file) bool {
	return f.top != "cmd" && f.top != "internal" && !beside[f.top]
}

// TestCoreSizes limits the lines of files and functions, and the number of parameters.
func TestCoreSizes(t *testing.T) {
	files := 0
	for _, f := range goFiles(t) {
		if f.test || !core(f) {
			continue
		}
		files++
		if f.lines > fileLines {
			t.Errorf("%s has %d lines, more than %d: it holds more than one noun, give each a file", f.name, f.lines, fileLines)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			d, ok := n.(*ast.FuncDecl)
			if !ok {
				return true
			}
			at := f.set.Position(d.Pos())
			if lines := f.set.Position(d.End()).Line - at.Line + 1; lines > funcLines {
				t.Errorf("%s: %s has %d lines, more than %d: split it by what it does", at, d.Name.Name, lines, funcLines)
			}
			if n := d.Type.Params.NumFields(); n > funcParams {
				t.Errorf("%s: %s has %d parameters, more than %d: what belongs together is a struct", at, d.Name.Name, n, funcParams)
			}
			return false
		})
	}
	if files < 60 {
		t.Errorf("found only %d files of the core: the test looks in the wrong place", files)
	}
}

// TestFSStaysSmall limits the methods and fields of the central type. A mechanism with state of its
// own belongs in a type or a package of its own.
func TestFSStaysSmall(t *testing.T) {
	methods, fields := 0, 0
	for _, f := range goFiles(t) {
		if f.test || f.dir != "fs" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch d := n.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && receiver(d) == "FS" {
					methods++
				}
				return false
			case *ast.TypeSpec:
				if s, ok := d.Type.(*ast.StructType); ok && d.Name.Name == "FS" {
					fields = s.Fields.NumFields()
				}
				return false
			}
			return true
		})
	}
	t.Logf("FS has %d methods and %d fields", methods, fields)
	if methods == 0 || fields == 0 {
		t.Fatal("found no type FS in fs: the test looks in the wrong place")
	}
	if methods >= fsMethods || fields >= fsFields {
		t.Errorf("FS has %d methods and %d fields, expected fewer than %d and %d: give a mechanism a type of its own", methods, fields, fsMethods, fsFields)
	}
}

// receiver returns the name of a method's receiver type.
func receiver(d *ast.FuncDecl) string {
	x := d.Recv.List[0].Type
	if s, ok := x.(*ast.StarExpr); ok {
		x = s.X
	}
	if id, ok := x.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
