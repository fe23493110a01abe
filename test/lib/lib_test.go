package lib

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m, harness.Children{}) }

const (
	limit = 2 * time.Minute
	lib   = "../../lib/"
)

// build compiles the checks with the library's files and further flags.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	harness.Need(t, "cc")
	bin := filepath.Join(t.TempDir(), "check")
	args := append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-g", "-pthread", "-o", bin}, flags...)
	for _, f := range []string{"test/check.c", "file.c", "table.c", "window.c", "lease.c", "mapping.c", "range.c", "guard.c", "copy_" + runtime.GOARCH + ".S"} {
		args = append(args, lib+f)
	}
	if out, err := harness.Command(limit, ".", nil, "cc", args...); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return bin
}

// TestChecks runs all checks on a mount.
func TestChecks(t *testing.T) {
	for name, flags := range map[string][]string{
		"plain":     nil,
		"address":   {"-fsanitize=address,undefined", "-fno-sanitize-recover=all"},
		"read-only": nil,
	} {
		t.Run(name, func(t *testing.T) {
			bin := build(t, flags...)
			options := ""
			checks := []string{"errors", "copy", "map", "fault", "threads", "speed"}
			if name == "address" {
				checks = checks[:5]
			}
			if name == "read-only" { // grants to write are refused: everything that copies works
				options, checks = "direct=ro", []string{"copy", "threads"}
			}
			m := harness.NewWith(t, options, 256<<20, limit)
			for _, c := range checks {
				out, err := harness.Command(time.Minute, ".", nil, bin, c, m.Path(c))
				if err != nil {
					t.Errorf("%s: %v\n%s", c, err, out)
				} else if out != "" {
					t.Logf("%s: %s", c, out)
				}
			}
		})
	}
}

// TestRefused checks what programs get where there are no grants: the library refuses, and says
// why.
func TestRefused(t *testing.T) {
	bin := build(t)
	for options, want := range map[string]string{
		"direct=off": "Operation not supported", "dax=never": "Operation not supported",
	} {
		m := harness.NewWith(t, options, 64<<20, limit)
		if out, err := harness.Command(limit, ".", nil, bin, "copy", m.Path("f")); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %s", options, err, out)
		}
	}
}

// TestProtocol checks that the C library has the protocol's numbers.
func TestProtocol(t *testing.T) {
	harness.Need(t, "cc")
	dir := t.TempDir()
	var g protocol.Grant
	source := fmt.Sprintf(`#include <stddef.h>
#include "protocol.h"
#define SAME(a, b) _Static_assert((a) == (b), #a)
SAME(DX_PROTOCOL, %dull); SAME(DX_IOC_GRANT, %dull); SAME(DX_IOC_CONFIRM, %dull); SAME(DX_IOC_COMMIT, %dull); SAME(DX_IOC_RELEASE, %dull);
SAME(DX_WRITE, %dull); SAME(DX_ALLOCATE, %dull); SAME(DX_EXTENTS, %dull); SAME(DX_PATH_MAX, %dull); SAME(DX_ID_MAX, %dull);
SAME(DX_IDENTITY(5, 1), %dull); SAME(DX_IDENTITY(6, 0), %dull); SAME(DX_SLOT_SIZE, %dull);
SAME(offsetof(struct dx_slot, generation), %dull); SAME(offsetof(struct dx_slot, file_size), %dull);
SAME(sizeof(struct dx_extent), %dull);
`, protocol.Version, uint32(protocol.IocGrant), uint32(protocol.IocConfirm), uint32(protocol.IocCommit), uint32(protocol.IocRelease),
		protocol.Write, protocol.Allocate, protocol.MaxExtents, protocol.MaxPath, uint64(protocol.MaxID),
		protocol.Identity(5, true), protocol.Identity(6, false), protocol.SlotSize, protocol.SlotGeneration, protocol.SlotFileSize,
		24)
	path := filepath.Join(dir, "same.c")
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := harness.Command(limit, ".", nil, "cc", "-std=gnu11", "-I", lib, "-c", "-o", filepath.Join(dir, "same.o"), path); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// Fields whose place the encoding of a reply shows.
	g = protocol.Grant{ID: 1, Inode: 2, RegionDev: 3, RegionIno: 4, Slot: 64, Generation: 6, FileSize: 7, End: 8, Granule: 9, RegionSize: 10, Path: "p",
		Extents: []protocol.Extent{{Offset: 11, Region: 12, Length: 13}}}
	b := make([]byte, protocol.GrantSize)
	g.Encode(b)
	var list []string
	for _, x := range b {
		list = append(list, fmt.Sprint(x))
	}
	source = `#include <stdio.h>
#include "protocol.h"
static const unsigned char b[] = {` + strings.Join(list, ",") + `};
int main(void) {
	const struct dx_grant *g = (const void *)b;
	printf("%d %d", g->version, g->flags);
	for (const uint64_t *p = (const uint64_t[]){g->id, g->inode, g->region_dev, g->region_ino, g->slot, g->generation, g->file_size, g->end, g->granule, g->region_size, g->extents, g->extent[0].offset, g->extent[0].region, g->extent[0].length, 0}; *p; p++)
		printf(" %llu", (unsigned long long)*p);
	printf(" %s\n", g->path);
	return 0;
}`
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "same")
	if out, err := harness.Command(limit, ".", nil, "cc", "-std=gnu11", "-I", lib, "-o", bin, path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := harness.Command(limit, ".", nil, bin)
	if want := "1 0 1 2 3 4 64 6 7 8 9 10 1 11 12 13 p\n"; err != nil || out != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// TestInstall checks that a program can be built with what `make install` installs.
func TestInstall(t *testing.T) {
	harness.Need(t, "cc", "make", "pkg-config")
	root := t.TempDir()
	if out, err := harness.Command(limit, "../..", nil, "make", "install", "DESTDIR="+root, "PREFIX=/usr"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(root, "x.c")
	if err := os.WriteFile(path, []byte("#include <daxfsd.h>\n#include <errno.h>\nint main(void) { return !(daxfsd_open(0) == 0 && errno != 0) || DAXFSD_VERSION < 1; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PKG_CONFIG_PATH=" + root + "/usr/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR=" + root, "LD_LIBRARY_PATH=" + root + "/usr/lib"}
	for _, static := range []string{"", "-static"} {
		out, err := harness.Command(limit, root, env, "sh", "-c", "cc "+static+" -Wall -Werror -o x x.c $(pkg-config --cflags --libs daxfsd) && ./x </dev/null")
		if err != nil {
			t.Errorf("%s: %v\n%s", static, err, out)
		}
	}
	if _, err := os.Stat(root + "/usr/share/man/man3/daxfsd.3"); err != nil {
		t.Error(err)
	}
}
