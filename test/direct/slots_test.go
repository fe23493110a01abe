package direct

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestSlots runs the example: several processes share a cache, a writer dies in the middle of a
// value, and a reader keeps its reference while the value is replaced and the cache is deleted.
func TestSlots(t *testing.T) {
	m := harness.New(t, 64<<20, limit)
	slots := filepath.Join(t.TempDir(), "slots")
	harness.Run(t, 2*time.Minute, "", nil, "go", "build", "-o", slots, "github.com/daxfsd/daxfsd/direct/example/slots")
	path := m.Path("cache")
	run := func(input, command, arg string) (string, error) {
		return harness.Filter(time.Minute, "", nil, input, slots, command, path, arg)
	}
	must := func(input, command, arg string) string {
		t.Helper()
		out, err := run(input, command, arg)
		if err != nil {
			t.Fatalf("slots %s %s: %v: %s", command, arg, err, out)
		}
		return out
	}
	must("", "create", "16")
	value := func(i int) string { return string(bytes.Repeat([]byte{byte('a' + i)}, 500_000+i)) }
	for i := range 6 {
		must(value(i), "put", fmt.Sprint("key", i))
	}
	for i := range 6 {
		if must("", "get", fmt.Sprint("key", i)) != value(i) {
			t.Errorf("key%d has another value", i)
		}
	}
	if out, err := run("", "get", "other"); err == nil || out != "slots: no such key\n" {
		t.Errorf("a key that is not there: %v, %q", err, out)
	}

	// A writer that dies leaves a free slot, and no lock.
	if out, err := run(value(9), "die", "dead"); err == nil {
		t.Errorf("a writer that should have died: %q", out)
	}
	if out, err := run("", "get", "dead"); err == nil {
		t.Errorf("the value of a writer that died has %d bytes", len(out))
	}
	must(value(9), "put", "dead")
	if must("", "get", "dead") != value(9) {
		t.Error("the value after a writer died is another")
	}

	// A reader keeps its reference: the key gets another value elsewhere, and then the cache is
	// deleted, and others want its space.
	in, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	held, ready, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	reader := exec.CommandContext(ctx, slots, "hold", path, "key3")
	reader.Stdin, reader.Stdout, reader.Stderr = in, &out, ready
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	ready.Close()
	if err := held.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	must(value(7), "put", "key3")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check := fill(t, m, "others")
	end.Close()
	if err := reader.Wait(); err != nil {
		t.Fatal(err)
	}
	if out.String() != value(3) {
		t.Errorf("the reader's reference had %d bytes, and other ones", out.Len())
	}
	check()
}
