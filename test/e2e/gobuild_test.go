package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestGoBuild runs the go command with sources, cache and temporary files on the mount, and runs
// the program that it built there.
func TestGoBuild(t *testing.T) {
	harness.Need(t, "go")
	mount := harness.New(t, 1<<30, 6*time.Minute)
	src := mount.Path("src")
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const packages = 8
	write("go.mod", "module example.org/prog\n\ngo 1.21\n")
	var imports, calls strings.Builder
	for i := range packages {
		write(fmt.Sprintf("p%d/p.go", i), fmt.Sprintf("// Package p%d has one number.\npackage p%d\n\nimport \"sort\"\n\n// N is the number.\nfunc N() int { s := []int{3, %d, 1}; sort.Ints(s); return s[0] + s[1] + s[2] }\n", i, i, i))
		fmt.Fprintf(&imports, "\t\"example.org/prog/p%d\"\n", i)
		fmt.Fprintf(&calls, "\tsum += p%d.N()\n", i)
	}
	write("main.go", "package main\n\nimport (\n\t\"encoding/json\"\n\t\"os\"\n\n"+imports.String()+")\n\nfunc main() {\n\tsum := 0\n"+calls.String()+
		"\tif err := json.NewEncoder(os.Stdout).Encode(map[string]int{\"sum\": sum}); err != nil {\n\t\tpanic(err)\n\t}\n}\n")
	want := fmt.Sprintf("{\"sum\":%d}\n", 4*packages+packages*(packages-1)/2)

	env := []string{
		"GOCACHE=" + mount.Path("cache"), "GOPATH=" + mount.Path("gopath"), "TMPDIR=" + mount.Path("tmp"), "GOTMPDIR=" + mount.Path("tmp"), "HOME=" + mount.Dir,
		"GOPROXY=off", "GOFLAGS=", "GOTOOLCHAIN=local", "GOWORK=off", "GOENV=off", "CGO_ENABLED=0",
	}
	if err := os.Mkdir(mount.Path("tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	harness.Run(t, 5*time.Minute, src, env, "go", "build", "-o", "prog", ".")
	first := time.Since(start)
	if got := harness.Run(t, time.Minute, src, env, "./prog"); got != want {
		t.Fatalf("the program says %q, want %q", got, want)
	}
	mount.Again()
	if got := harness.Run(t, time.Minute, src, env, "./prog"); got != want {
		t.Fatalf("after a remount the program says %q, want %q", got, want)
	}
	// The cache survived the remount: only changed packages are built.
	write("p0/p.go", "// Package p0 has another number.\npackage p0\n\n// N is the number.\nfunc N() int { return 100 }\n")
	start = time.Now()
	built := harness.Run(t, 5*time.Minute, src, env, "go", "build", "-v", "-o", "prog", ".")
	if built != "example.org/prog/p0\nexample.org/prog\n" {
		t.Errorf("after the remount one package was changed and these were built:\n%s", built)
	}
	want = fmt.Sprintf("{\"sum\":%d}\n", 4*packages+packages*(packages-1)/2-4+100)
	if got := harness.Run(t, time.Minute, src, env, "./prog"); got != want {
		t.Errorf("rebuilt, the program says %q, want %q", got, want)
	}
	t.Logf("first build %v, rebuild from the cache %v", first.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}
