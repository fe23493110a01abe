package machine

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"strings"
)

//go:embed pins
var pinsText string

// pinned is a Debian package of one version.
type pinned struct{ suite, name, version string }

// pins are what the file of that name says.
type pins struct {
	kernel   string // release, as uname -r says
	modules  []string
	packages []pinned
	parts    []part // the first has no name: it is what every guest has
}

// part is what goes into one archive. All but the first are only for the boots that ask for them,
// because each megabyte takes its time to unpack.
type part struct {
	name  string
	files []string // from the packages' roots
	trees []string // below the kernel's modules
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

// suites are those of the packages, once each.
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

// key names a guest made of these pins with this init.
func (p *pins) key() string {
	return fmt.Sprintf("%s-%x", p.kernel, sha256.Sum256([]byte(pinsText+initScript)))[:len(p.kernel)+13]
}
