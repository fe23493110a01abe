package preload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m, harness.Children{}) }

const limit = 3 * time.Minute

// built is the directory of the program and the library, as make build leaves them.
func built(t *testing.T) string {
	t.Helper()
	harness.Need(t, "cc", "make")
	if out, err := harness.Command(limit, "../..", nil, "make", "build"); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// compile compiles a program of lib/test.
func compile(t *testing.T, source string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "program")
	if out, err := harness.Command(limit, ".", nil, "cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-g", "-pthread", "-o", bin, "../../lib/test/"+source); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return bin
}

// TestProgram compares what a program sees with and without the library.
func TestProgram(t *testing.T) {
	bin, program := built(t), compile(t, "program.c")
	m := harness.New(t, 256<<20, limit)
	for _, check := range []string{"reuse", "offsets", "flags", "times", "threads", "handler", "map", "bus", "children"} {
		plain, err := harness.Command(time.Minute, ".", nil, program, check, m.Mountpoint)
		if err != nil {
			t.Fatalf("%s, without the library: %v\n%s", check, err, plain)
		}
		got, err := harness.Command(time.Minute, ".", nil, bin+"/daxfsd", "run", "--verbose", "--", program, check, m.Mountpoint)
		if err != nil || got != plain {
			t.Errorf("%s: %v\n%s\nwithout the library:\n%s", check, err, got, plain)
		}
	}
	if s := grants(t, bin, m.Mountpoint); !strings.Contains(s, "no program") {
		t.Logf("left: %s", s)
	}
}

// grants returns what the daemon says of its grants.
func grants(t *testing.T, bin, mountpoint string) string {
	t.Helper()
	out, err := harness.Command(limit, ".", nil, bin+"/daxfsd", "leases", mountpoint)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// TestServed checks that the library does serve: a program that it runs has a grant, one without it
// has none.
func TestServed(t *testing.T) {
	bin := built(t)
	m := harness.New(t, 64<<20, limit)
	for _, with := range []bool{false, true} { // what it leases is kept for a moment after its end
		args := []string{bin + "/daxfsd", "leases", "--json", m.Mountpoint}
		script := "exec 3<>" + m.Path("f") + "; echo data >&3; head -c 4 " + m.Path("f") + " >/dev/null; python3 -c 'import os,sys,subprocess\nf=os.open(\"" + m.Path("f") +
			"\",os.O_RDWR)\nos.pread(f,4,0)\nenv=dict(os.environ); env.pop(\"LD_PRELOAD\",None)\nsys.stdout.write(subprocess.run(" + quoted(args) + ",env=env,capture_output=True,text=True).stdout)'"
		command := []string{"sh", "-c", script}
		if with {
			command = append([]string{bin + "/daxfsd", "run", "--verbose", "--"}, command...)
		}
		out, err := harness.Command(limit, ".", nil, command[0], command[1:]...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if served := strings.Contains(out, "\"inode\"") || strings.Contains(out, "\"file\""); served != with {
			t.Errorf("with the library: %v; grants: %s", with, out)
		}
	}
}

// quoted returns a list of words in Python.
func quoted(words []string) string { return "[\"" + strings.Join(words, "\",\"") + "\"]" }

// TestFio runs fio with verification by each engine that the library serves, unmodified, while
// another process changes the files.
func TestFio(t *testing.T) {
	harness.Need(t, "fio")
	bin := built(t)
	m := harness.New(t, 512<<20, limit)
	stop := make(chan struct{})
	done := make(chan struct{})
	other := m.Path("other")
	go func() { // other files, and names
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.WriteFile(other, make([]byte, 1<<20), 0o600)
			_ = os.Truncate(other, int64(i%1000)*1000)
			_ = os.Rename(other, other+"2")
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() { close(stop); <-done }()
	for _, engine := range []string{"psync", "sync", "vsync", "pvsync2", "mmap"} {
		for _, threads := range []bool{true, false} {
			args := []string{"run", "--", "fio", "--name=x", "--size=4m", "--rw=randwrite", "--bs=4k", "--ioengine=" + engine, "--numjobs=4",
				"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--group_reporting", "--minimal"}
			if threads {
				args = append(args, "--thread")
			}
			if engine == "mmap" { // fio's own jobs spoil each other's parts of one file, on every filesystem
				args = append(args, "--directory="+m.Mountpoint)
			} else {
				args = append(args, "--filename="+m.Path("fio-"+engine), "--offset_increment=4m")
			}
			if out, err := harness.Command(limit, m.Dir, nil, bin+"/daxfsd", args...); err != nil {
				t.Errorf("%s, threads %v: %v\n%s", engine, threads, err, out)
			}
		}
	}
}

// TestRefusals checks what run says about programs that it cannot serve.
func TestRefusals(t *testing.T) {
	bin := built(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!"+bin+"/daxfsd version\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{bin + "/daxfsd", "version"}, "is statically linked"},
		{[]string{script}, "is statically linked"},
		{[]string{"no-such-program"}, "not found"},
	} {
		if out, err := harness.Command(limit, ".", nil, bin+"/daxfsd", append([]string{"run", "--"}, c.args...)...); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("run %v: %v, %s, want %q", c.args, err, out, c.want)
		}
	}
	if out, err := harness.Command(limit, ".", nil, bin+"/daxfsd", "run", "--", "sh", "-c", "echo $LD_PRELOAD; exit 7"); err == nil || !strings.Contains(err.Error(), "7") || !strings.Contains(out, "libdaxfsd-preload.so") {
		t.Errorf("a program's exit code: %v, %s", err, out)
	}
}
