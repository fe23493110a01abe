package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// treeRows lists the rows in the order in which they are measured.
var treeRows = []string{"tree/untar", "tree/git-status", "tree/rm"}

// pack makes an archive, in memory, of a git repository that holds a source tree.
func (e *environment) pack(ctx context.Context) (archive string, err error) {
	src := e.conf.Tree
	if src == "" {
		out, err := program(ctx, "", "go", "env", "GOROOT")
		if err != nil {
			return "", fmt.Errorf("go env GOROOT: %w", err)
		}
		src = filepath.Join(strings.TrimSpace(out), "src")
		if e.conf.Quick {
			src = filepath.Join(src, "encoding")
		}
	}
	stage := filepath.Join(e.memory, "stage")
	defer os.RemoveAll(stage)
	if err := os.Mkdir(stage, 0o755); err != nil {
		return "", err
	}
	tree := filepath.Join(stage, "tree")
	archive = filepath.Join(e.memory, "tree.tar")
	for _, c := range [][]string{
		{"cp", "-rL", src, tree}, // -L: a distribution's package may have put links there
		{"git", "-C", tree, "init", "-q"},
		{"git", "-C", tree, "add", "-A", "-f"},
		{"git", "-C", tree, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0", "commit", "-q", "-m", "tree"},
		{"tar", "-cf", archive, "-C", stage, "tree"},
	} {
		if out, err := program(ctx, "", c[0], c[1:]...); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", strings.Join(c, " "), err, out)
		}
	}
	return archive, nil
}

// tree unpacks the archive, makes git examine every file, and deletes everything.
func (m *measurement) tree(t *contender, archive string, rows []*row) error {
	tree := filepath.Join(t.dir, "tree")
	for i, c := range [][]string{
		{"tar", "--no-same-owner", "-xf", archive, "-C", t.dir},
		// The tree may belong to another user, and the user's git configuration must not matter.
		{"git", "-c", "safe.directory=*", "-C", tree, "status", "--porcelain"},
		{"rm", "-rf", tree},
	} {
		start := time.Now()
		out, err := program(m.ctx, "", c[0], c[1:]...)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(c, " "), err, out)
		}
		took := time.Since(start)
		if out != "" {
			return fmt.Errorf("%s printed something, expected no output:\n%s", strings.Join(c, " "), out)
		}
		record(rows, treeRows[i], t.name, took.Seconds())
	}
	return nil
}
