package direct

import (
	"bytes"
	"os"
	"testing"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

// TestRoundTrip writes and reads a file directly and through the mount.
func TestRoundTrip(t *testing.T) {
	m := harness.New(t, 256<<20, limit)
	path := m.Path("f")
	create(t, path, 1, 8<<20)
	d := open(t, path, os.O_RDWR)
	buf := make([]byte, 8<<20)
	if n, err := d.ReadAt(buf, 0); n != len(buf) || err != nil || !bytes.Equal(buf, bytes.Repeat([]byte{1}, len(buf))) {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	data := bytes.Repeat([]byte("direct"), 10000)
	if n, err := d.WriteAt(data, 12345); n != len(data) || err != nil {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got[12345:12345+len(data)], data) {
		t.Fatalf("the mount does not show what was written directly (%v)", err)
	}
	mp, err := d.Map(2<<20, 4<<20, direct.MapOptions{Write: true, PageSize: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", mp.PageSizes())
	copy(mp.Bytes(), "mapped")
	if err := mp.Flush(0, 6); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got[2<<20:2<<20+6]) != "mapped" {
		t.Fatalf("the mount does not show what was stored to a mapping (%v)", err)
	}
	if mp.Stale() {
		t.Error("a mapping is stale")
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !mp.Stale() {
		t.Error("a mapping is not stale after truncation")
	}
	if err := mp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
