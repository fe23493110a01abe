package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNumbersAgree checks that df, df -i, info (as JSON and for people) and fsck give the same
// figures, in the same words, for the same filesystem with any content, and again after a remount.
func TestNumbersAgree(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	region, mp := filepath.Join(memoryFilesystem(t, "size=64m"), "region"), mountPoint(t) // in memory, so that no disk is waited for
	path := func(name ...string) string { return filepath.Join(append([]string{mp}, name...)...) }
	must := func(args ...string) string { return must(t, args...) }
	succeed := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	agree := func(what string) {
		t.Helper()
		var st unix.Statfs_t
		succeed(unix.Statfs(mp, &st))
		mountInfo := decode(t, must("info", "--json", mp))["mount"].(map[string]any)
		has(t, mountInfo, map[string]any{
			"blocks": float64(st.Blocks), "free_blocks": float64(st.Bfree), "available_blocks": float64(st.Bavail),
			"inodes": float64(st.Files - st.Ffree), "free_inodes": float64(st.Ffree),
		})
		size := func(blocks uint64) string { return formatSize(int64(blocks) * st.Bsize) }
		text := must("info", mp)
		for _, line := range []string{
			"for files " + size(st.Blocks), "used " + size(st.Blocks-st.Bfree), "free " + size(st.Bfree) + ", of which " + size(st.Bavail) + " are available to all",
			fmt.Sprintf("inodes %d used, %d free", st.Files-st.Ffree, st.Ffree),
		} {
			if !regexp.MustCompile("(?m)^" + strings.ReplaceAll(regexp.QuoteMeta(line), " ", " +") + "$").MatchString(text) {
				t.Errorf("%s: no line %q in %s", what, line, text)
			}
		}
		if !strings.Contains(must("top", "--once", "--interval", "50ms", mp), size(st.Blocks-st.Bfree)+" of "+size(st.Blocks)+" used") {
			t.Errorf("%s: top says something else", what)
		}

		must("umount", mp)
		text = must("fsck", "-n", region)
		for _, want := range []string{fmt.Sprintf("%d inodes:", st.Files-st.Ffree), size(st.Blocks-st.Bfree) + " used", size(st.Bfree) + " free"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: fsck does not say %q: %s", what, want, text)
			}
		}
		report := decode(t, must("fsck", "-n", "--json", region))
		has(t, report, map[string]any{"used_blocks": float64(st.Blocks - st.Bfree), "free_blocks": float64(st.Bfree)})
		must("mount", region, mp)
		var again unix.Statfs_t
		succeed(unix.Statfs(mp, &again))
		if again.Bfree != st.Bfree || again.Bavail != st.Bavail || again.Files != st.Files || again.Ffree != st.Ffree {
			t.Errorf("%s: after a remount statfs says %+v, before %+v", what, again, st)
		}
	}
	must("mkfs", "--sparse", "--size", "32MiB", region)
	must("mount", region, mp)
	agree("empty")
	for number := range 20 {
		dir := path(fmt.Sprint("dir", number))
		succeed(os.Mkdir(dir, 0o755))
		for i := range 50 {
			writeFile(t, filepath.Join(dir, fmt.Sprint(i)), make([]byte, i*10))
		}
		succeed(os.Symlink("x", filepath.Join(dir, "link")))
		succeed(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	}
	agree("small files")
	writeFile(t, path("large"), make([]byte, 5<<20))
	succeed(unix.Setxattr(path("large"), "user.large", make([]byte, 60000), 0))
	sparse, err := os.Create(path("sparse"))
	succeed(err)
	for i := range 200 {
		_, err := sparse.WriteAt([]byte("x"), int64(i)*100_000)
		succeed(err)
	}
	succeed(unix.Fallocate(int(sparse.Fd()), 0, 0, 1<<20))
	sparse.Close()
	agree("extents, attributes, preallocated space")
	for number := range 15 {
		succeed(os.RemoveAll(path(fmt.Sprint("dir", number))))
	}
	succeed(os.Truncate(path("large"), 100))
	agree("after deleting")
}
