package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestGit runs git on a repository on the mount.
func TestGit(t *testing.T) {
	harness.Need(t, "git")
	mount := harness.New(t, 512<<20, 4*time.Minute)
	repo := mount.Path("repo")
	env := []string{
		"HOME=" + mount.Dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.org",
	}
	git := func(dir string, args ...string) string {
		t.Helper()
		return harness.Run(t, 2*time.Minute, dir, env, "git", args...)
	}
	git(mount.Mountpoint, "init", "-q", "-b", "main", repo)
	rng := rand.New(rand.NewPCG(1, 2))
	edit := func(from, n int) {
		t.Helper()
		for range n {
			name := filepath.Join(repo, fmt.Sprintf("d%02d/e%d/f%03d", rng.IntN(20), rng.IntN(3), from+rng.IntN(100)))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			text := strings.Repeat(fmt.Sprintf("line %d\n", rng.IntN(1000)), 1+rng.IntN(400))
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit := func(message string) {
		t.Helper()
		git(repo, "add", "-A")
		git(repo, "commit", "-q", "-m", message)
	}
	for i := range 10 {
		edit(0, 150)
		commit(fmt.Sprint("commit ", i))
	}
	git(repo, "checkout", "-q", "-b", "side", "HEAD~3")
	edit(500, 50) // other names, so that the merge has no conflict
	commit("side")
	git(repo, "checkout", "-q", "main")
	git(repo, "merge", "-q", "-m", "merge", "side")
	git(mount.Mountpoint, "clone", "-q", "--local", repo, mount.Path("clone")) // hard links
	git(repo, "gc", "-q", "--prune=now")
	edit(0, 40)
	commit("after gc")
	head, tree := git(repo, "rev-parse", "HEAD"), git(repo, "ls-files", "-s")

	mount.Again()
	for _, dir := range []string{repo, mount.Path("clone")} {
		git(dir, "fsck", "--full", "--strict", "--no-dangling")
		if status := git(dir, "status", "--porcelain"); status != "" {
			t.Errorf("git status is not clean:\n%s", status)
		}
	}
	if git(repo, "rev-parse", "HEAD") != head || git(repo, "ls-files", "-s") != tree {
		t.Error("HEAD or the index changed over the remount")
	}
	// Read and hash every file again, instead of trusting its times.
	git(repo, "update-index", "-q", "--really-refresh")
	git(repo, "diff", "--exit-code", "HEAD")
}
