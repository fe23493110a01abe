package lint

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

	source   = regexp.MustCompile("`((?:bench|cmd|deploy|docs|fs|hugepage|internal|pagecache|pmem|refcnt|test)/[A-Za-z0-9_./-]+)`")
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z][A-Za-z0-9_]*)`")
)

// TestLinks checks that what a document links to inside the repository exists, including headings.
func TestLinks(t *testing.T) {
	top := root(t)
	checked := 0
	documents(t, func(name, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = path.Join(path.Dir(name), file)
			}
			target, err := os.ReadFile(filepath.Join(top, to))
			if err != nil {
				if info, e := os.Stat(filepath.Join(top, to)); e != nil || !info.IsDir() {
					t.Errorf("%s links to %s: %v", name, m[1], err)
				}
				continue
			}
			if anchor != "" && !anchors(string(target))[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", name, m[1], to)
			}
			checked++
		}
	})
	if checked < 50 {
		t.Errorf("found only %d links: the test looks in the wrong place", checked)
	}
}

// TestNames checks that the files and tests of the repository that a document names exist.
func TestNames(t *testing.T) {
	top := root(t)
	tests := map[string]bool{}
	for _, f := range goFiles(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.test && fn.Recv == nil {
				tests[fn.Name.Name] = true
			}
		}
	}
	files, named := 0, 0
	documents(t, func(name, text string) {
		for _, m := range source.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(top, m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", name, m[1])
			}
			files++
		}
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, which is not there", name, m[1])
			}
			named++
		}
	})
	if files < 40 || named < 10 {
		t.Errorf("found only %d files and %d tests named: the test looks in the wrong place", files, named)
	}
}

// documents calls f with the name and the text of each document of the repository.
func documents(t *testing.T, f func(name, text string)) {
	walk(t, func(abs, name string) {
		if !strings.HasSuffix(name, ".md") {
			return
		}
		b, err := os.ReadFile(abs)
		if err != nil {
			t.Fatal(err)
		}
		f(name, string(b))
	})
}

// anchors returns the names by which links refer to the headings of a document.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		var b strings.Builder
		for _, r := range strings.ToLower(m[1]) {
			switch {
			case r == ' ':
				b.WriteByte('-')
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				b.WriteRune(r)
			}
		}
		all[b.String()] = true
	}
	return all
}
