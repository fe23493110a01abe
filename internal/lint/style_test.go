package lint

import (
	"go/ast"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// commentWidth is the last column of a comment on lines of its own. A tab counts four.
const commentWidth = 100

// TestCommentWidth checks that comments wrap. Directives need not, nor lines without a space to
// break at.
func TestCommentWidth(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, g := range f.ast.Comments {
			for _, c := range g.List {
				at := f.set.Position(c.Pos())
				indent := at.Column - 1
				if strings.Trim(string(f.src[at.Offset-indent:at.Offset]), "\t") != "" { // behind code
					continue
				}
				for i, line := range strings.Split(c.Text, "\n") {
					if i > 0 {
						indent = 0
					}
					width := 4*indent + utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
					if width > commentWidth && breakable(line) {
						t.Errorf("%s:%d: a comment of %d columns: wrap it at %d", f.name, at.Line+i, width, commentWidth)
					}
				}
			}
		}
	}
}

// breakable reports whether a line of a comment can be wrapped, because it is prose of more than
// one word.
func breakable(line string) bool {
	text, isLine := strings.CutPrefix(line, "//")
	if isLine && text != "" && text[0] != ' ' && text[0] != '\t' { // a directive: //go:build
		return false
	}
	return strings.Contains(strings.TrimSpace(text), " ")
}

// TestImportOrder checks that imports are in groups, with a blank line between: the standard
// library, then other modules, then this one.
func TestImportOrder(t *testing.T) {
	for _, f := range goFiles(t) {
		last, lastLine := 0, 0
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				break
			}
			for _, s := range g.Specs {
				i, ok := s.(*ast.ImportSpec)
				if !ok {
					continue
				}
				p, _ := strconv.Unquote(i.Path.Value)
				group, line := importGroup(p), f.set.Position(i.Pos()).Line
				switch {
				case group < last:
					t.Errorf("%s:%d: import of %q: the order is the standard library, other modules, %s", f.name, line, p, module)
				case last != 0 && (group != last) != (line > lastLine+1) && i.Doc == nil:
					t.Errorf("%s:%d: import of %q: blank lines belong between the groups and nowhere else", f.name, line, p)
				}
				last, lastLine = group, line
			}
		}
	}
}

// importGroup returns 1 for the standard library, 2 for other modules, 3 for this one.
func importGroup(path string) int {
	first, _, _ := strings.Cut(path, "/")
	switch {
	case path == module || strings.HasPrefix(path, module+"/"):
		return 3
	case strings.Contains(first, "."):
		return 2
	}
	return 1
}
