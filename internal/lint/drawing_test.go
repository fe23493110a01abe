package lint

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// drawn matches a line of the drawing of packages, such as " fs/journal/ what it is -> layout,
// pmem".
var drawn = regexp.MustCompile(`(?m)^    ([a-z/]+?)/? .*-> ([a-z, ]+)$`)

// TestDrawing checks that docs/architecture.md draws the packages and their imports as they are. A
// package is named by the last part of its path. internal/ is below all others, and is not drawn.
func TestDrawing(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root(t), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(doc), "\n## Packages\n")
	text, _, _ = strings.Cut(text, "\n## ")
	draws := map[string][]string{}
	for _, match := range drawn.FindAllStringSubmatch(text, -1) {
		draws[match[1]] = slices.Sorted(slices.Values(strings.Split(match[2], ", ")))
		if match[2] == "nothing" {
			draws[match[1]] = nil
		}
	}
	imports := map[string]map[string]bool{}
	for _, file := range goFiles(t) {
		if file.test || beside[file.top] || file.top == "internal" {
			continue
		}
		if imports[file.dir] == nil {
			imports[file.dir] = map[string]bool{}
		}
		for _, imported := range file.imports {
			if to, ours := strings.CutPrefix(imported, module+"/"); ours && !strings.HasPrefix(to, "internal/") {
				imports[file.dir][path.Base(to)] = true
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(imports)) {
		is := slices.Sorted(maps.Keys(imports[dir]))
		draw, ok := draws[dir]
		switch {
		case !ok:
			t.Errorf("docs/architecture.md does not draw %s: add a line with what it is and \"-> %s\"", dir, strings.Join(is, ", "))
		case !slices.Equal(draw, is):
			t.Errorf("docs/architecture.md draws that %s imports %q, it imports %q", dir, draw, is)
		}
		delete(draws, dir)
	}
	for dir := range draws {
		t.Errorf("docs/architecture.md draws %s, which does not exist", dir)
	}
}
