package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestSetGIDOtherNamespace checks that a writer in a PID namespace that the daemon cannot see is
// not assumed to be in the file's group. This holds even if the daemon's /proc is that of the other
// namespace, where the writer's number is another process's.
func TestSetGIDOtherNamespace(t *testing.T) {
	needFUSE(t)
	needRoot(t)
	for _, tool := range []string{"unshare", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	dir := userDir(t, 65534)
	region, mp := filepath.Join(dir, "region"), filepath.Join(dir, "mnt")
	must(t, "mkfs", "--sparse", "--size", "32MiB", region)
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func() os.FileMode {
		t.Helper()
		file := filepath.Join(mp, "f")
		writeFile(t, file, []byte("x"))
		if err := os.Chown(file, 0, 3003); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o666|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--groups=3003", "sh", "-c", `echo y >> "$0"`, file).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode()
	}
	for _, c := range []struct {
		name string
		ns   []string
		want os.FileMode
	}{{"its own", nil, os.ModeSetgid | 0o666}, {"another", []string{"unshare", "--pid", "--fork", "--kill-child"}, 0o666}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := command(ctx, "mount", "--foreground", region, mp)
			if c.ns != nil {
				exe, err := exec.LookPath(c.ns[0])
				if err != nil {
					t.Fatal(err)
				}
				cmd.Args = append(append([]string{exe}, c.ns[1:]...), append([]string{cmd.Path}, cmd.Args[1:]...)...)
				cmd.Path = exe
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { // Wait returns when the filesystem is unmounted
				exec.Command("umount", mp).Run()
				cmd.Wait()
			}()
			for mount, _ := mountAt(mp); mount == nil && ctx.Err() == nil; mount, _ = mountAt(mp) {
				time.Sleep(10 * time.Millisecond)
			}
			if got := write(); got != c.want {
				t.Errorf("mode %v after a write by a member of the group, want %v", got, c.want)
			}
		})
	}
}
