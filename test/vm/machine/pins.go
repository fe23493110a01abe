package machine

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"strings"
)

//go:embed pins
var pinsText string

// pinned is a Debian package in one version.
type pinned struct{ suite, name, version string }

// pins is the content of the file pins.
type pins struct {
	kernel   string // release, as printed by uname -r
	modules  []string
	packages []pinned
	parts    []part // the first has no name; every guest has it
}

// part is the content of one archive. All but the first are only for boots that ask for them,
// because each megabyte takes time to unpack.
type part struct {
	name  string
	files []string // paths in the packages
	trees []string // paths below the kernel's module directory
}

func readPins(text string) (*pins, error) {
	p := &pins{parts: make([]part, 1)}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		last := &p.parts[len(p.parts)-1]
		switch {
		case w[0] == "kernel" && len(w) == 2:
			p.kernel = w[1]
		case w[0] == "module" && len(w) > 1:
			p.modules = append(p.modules, w[1:]...)
		case w[0] == "package" && len(w) == 4:
			p.packages = append(p.packages, pinned{w[1], w[2], w[3]})
		case w[0] == "part" && len(w) == 2:
			p.parts = append(p.parts, part{name: w[1]})
		case w[0] == "file" && len(w) > 1:
			last.files = append(last.files, w[1:]...)
		case w[0] == "tree" && len(w) > 1:
			last.trees = append(last.trees, w[1:]...)
		default:
			return nil, fmt.Errorf("test/vm/machine/pins: %q: unknown, or with a wrong number of words", strings.TrimSpace(line))
		}
	}
	return p, nil
}

// suites returns the suites of the packages, without duplicates.
func (p *pins) suites() (l []string) {
	seen := map[string]bool{}
	for _, k := range p.packages {
		if !seen[k.suite] {
			seen[k.suite] = true
			l = append(l, k.suite)
		}
	}
	return l
}

// key returns the cache's name of a guest made of these pins and this init.
func (p *pins) key() string {
	return fmt.Sprintf("%s-%x", p.kernel, sha256.Sum256([]byte(pinsText+initScript)))[:len(p.kernel)+13]
}
