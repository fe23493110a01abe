package guest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/pmem"
	"github.com/daxfsd/daxfsd/test/harness"
)

const dax = "/dev/dax0.0"

// says requires that a refusal is one line of daxfsd that contains the words.
func says(t *testing.T, out string, words ...string) {
	t.Helper()
	t.Log(strings.TrimSpace(out))
	if strings.Count(strings.TrimSpace(out), "\n") > 0 || !strings.HasPrefix(out, "daxfsd: ") {
		t.Errorf("that is not one sentence of daxfsd's:\n%s", out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("it does not say %q", w)
		}
	}
}

// TestMisuse makes common mistakes with a device. Each must be refused in one clear sentence.
func TestMisuse(t *testing.T) {
	t.Run("busy", func(t *testing.T) {
		devdax(t, 2*mib)
		t.Setenv(harness.RegionEnv, dax)
		mount := harness.NewWith(t, "transport=dev", 0, limit)
		second := t.TempDir()
		for _, args := range [][]string{{"mount", dax, second}, {"mkfs", "--force", dax}, {"fsck", dax}} {
			says(t, refused(t, args...), dax, "mounted on "+mount.Mountpoint, "unmount it first")
		}
		mount.Down()
		file, err := os.OpenFile(dax, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil { // as another program would
			t.Fatal(err)
		}
		says(t, refused(t, "mount", dax, second), dax, fmt.Sprint("in use by process ", os.Getpid()), "unmount it first")
	})
	t.Run("alignment", func(t *testing.T) {
		devdax(t, 2*mib)
		run(t, harness.Daxfsd, "mkfs", "--force", "--size", "1GiB", dax)
		super := make([]byte, mib)
		region, err := pmem.Open(dax, pmem.Options{})
		if err == nil {
			err = region.Load(0, super)
			region.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		devdax(t, gib)
		if region, err = pmem.Open(dax, pmem.Options{}); err == nil {
			if err = region.Store(0, super); err == nil {
				err = region.Flush(0, mib)
			}
			region.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		says(t, refused(t, "mount", dax, t.TempDir()), dax, "1 GiB", "2 MiB", "--align")
	})
	t.Run("system-ram", func(t *testing.T) {
		devdax(t, 2*mib)
		if err := os.WriteFile("/sys/devices/system/memory/auto_online_blocks", []byte("offline"), 0); err != nil {
			t.Fatal(err)
		}
		run(t, "daxctl", "reconfigure-device", "--mode=system-ram", "--no-online", "dax0.0")
		for _, args := range [][]string{{"mount", dax, t.TempDir()}, {"mkfs", dax}, {"info", dax}} {
			says(t, refused(t, args...), dax, "system-ram", "daxctl reconfigure-device")
		}
		run(t, "daxctl", "reconfigure-device", "--mode=devdax", "dax0.0")
		run(t, harness.Daxfsd, "mkfs", "--force", dax)
	})
	t.Run("disabled", func(t *testing.T) {
		devdax(t, 2*mib)
		run(t, "daxctl", "disable-device", "dax0.0")
		says(t, refused(t, "mount", dax, t.TempDir()), dax, "disabled", "daxctl enable-device")
		run(t, "daxctl", "enable-device", "dax0.0")
	})
	t.Run("block device", func(t *testing.T) {
		fsdax(t)
		says(t, refused(t, "mkfs", "/dev/pmem0"), "/dev/pmem0", "block device", "-o dax")
	})
}

// TestFormat formats the device in the first boot of the host's TestShrunk, where the device is
// larger.
func TestFormat(t *testing.T) {
	devdax(t, 2*mib)
	run(t, harness.Daxfsd, "mkfs", dax)
}

// TestShrunk checks the refusals if the namespace is smaller than when mkfs formatted it.
func TestShrunk(t *testing.T) {
	if _, err := os.Stat(dax); err != nil {
		t.Fatalf("the namespace is not what it was: %v: %s", err, run(t, "ndctl", "list", "-Ni"))
	}
	for _, args := range [][]string{{"mount", dax, t.TempDir()}, {"fsck", "-n", dax}, {"info", dax}} {
		says(t, refused(t, args...), dax, "truncated", "restore")
	}
}

// TestPosix runs the whole of test/posix on device-dax.
func TestPosix(t *testing.T) {
	devdax(t, 2*mib)
	run(t, harness.Daxfsd, "mkfs", "--force", dax)
	t.Setenv(harness.RegionEnv, dax)
	t.Log(harness.RunTests(t, 75*time.Minute, "posix.test", "-slow", "10", "-test.v", "-test.timeout", "75m",
		"-test.run", "TestPosix/^(dax=always|dax=never|transport=uring)$"))
}
