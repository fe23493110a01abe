package pmem

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestHostIdentity(t *testing.T) {
	m1, b1 := HostIdentity()
	m2, b2 := HostIdentity()
	if m1 != m2 || b1 != b2 || m1 == [16]byte{} || b1 == [16]byte{} {
		t.Errorf("machine %x and %x, boot %x and %x", m1, m2, b1, b2)
	}

	root := t.TempDir()
	write(t, filepath.Join(root, "proc/sys/kernel/random/boot_id"), "00112233-4455-6677-8899-aabbccddeeff")
	write(t, filepath.Join(root, "proc/sys/kernel/hostname"), "one")
	hashed, boot := hostIdentity(root)
	if boot != [16]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff} {
		t.Errorf("boot %x", boot)
	}
	if again, _ := hostIdentity(root); again != hashed || hashed == [16]byte{} {
		t.Errorf("machine %x, then %x", hashed, again)
	}
	for _, content := range []string{"", "uninitialized", "00000000000000000000000000000000", "zz112233445566778899aabbccddeeff"} {
		write(t, filepath.Join(root, "etc/machine-id"), content)
		if got, _ := hostIdentity(root); got != hashed {
			t.Errorf("machine-id %q: %x, want the hash %x", content, got, hashed)
		}
	}
	write(t, filepath.Join(root, "etc/machine-id"), "ff112233445566778899aabbccddeeff")
	if got, _ := hostIdentity(root); got[0] != 0xff || got[15] != 0xff {
		t.Errorf("machine %x", got)
	}
	os.Remove(filepath.Join(root, "etc/machine-id"))
	write(t, filepath.Join(root, "proc/sys/kernel/hostname"), "two")
	if got, _ := hostIdentity(root); got == hashed {
		t.Error("another host, the same hash")
	}
}

// TestHostIdentityFirmware checks that the host name, of which a container has its own, counts only
// if the firmware's names are not unique.
func TestHostIdentityFirmware(t *testing.T) {
	for _, c := range []struct {
		name, fact, value string
		unique            bool
	}{
		{"PC", "sys/class/dmi/id/product_uuid", "4c4c4544-0042-3510-8054-b4c04f333132\n", true},
		{"device tree", "sys/firmware/devicetree/base/serial-number", "10000000a1b2c3d4\x00", true},
		{"PC without a number", "sys/class/dmi/id/product_uuid", "00000000-0000-0000-0000-000000000000", false},
		{"device tree without a number", "sys/firmware/devicetree/base/serial-number", "0000000000000000\x00", false},
		{"placeholder", "sys/class/dmi/id/board_serial", "None", false},
	} {
		root := t.TempDir()
		write(t, filepath.Join(root, c.fact), c.value)
		write(t, filepath.Join(root, "proc/sys/kernel/hostname"), "one")
		before, _ := hostIdentity(root)
		write(t, filepath.Join(root, "proc/sys/kernel/hostname"), "two")
		if after, _ := hostIdentity(root); (before == after) != c.unique {
			t.Errorf("%s: machine %x, under another host name %x", c.name, before, after)
		}
		write(t, filepath.Join(root, c.fact), "4c4c4544-0042-3510-8054-b4c04f333199")
		if other, _ := hostIdentity(root); other == before {
			t.Errorf("%s: another machine has the same identity", c.name)
		}
	}
}

func TestProcessStatus(t *testing.T) {
	self, err := ProcessStatus(os.Getpid())
	if err != nil || self.Stopped {
		t.Fatalf("%+v, error %v", self, err)
	}
	time.Sleep(20 * time.Millisecond)
	// An emulator makes up a start time for each thread.
	if again, err := ProcessStatus(os.Getpid()); err != nil || again != self && !emulated() {
		t.Errorf("%+v, then %+v, error %v", self, again, err)
	}
	if s := Self(); s.PID != os.Getpid() || (s.Start != self.Start || s.Namespace == 0) && !emulated() {
		t.Errorf("this process is %+v, /proc says %+v", s, self)
	}
	if _, err := ProcessStatus(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
	line := "42 (a ) (b c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10"
	if p, err := parseStat(line); err != nil || p.Start != 987654 || p.Stopped {
		t.Errorf("%+v, error %v", p, err)
	}
	if p, err := parseStat(strings.Replace(line, ") S", ") T", 1)); err != nil || p.Start != 987654 || !p.Stopped {
		t.Errorf("stopped: %+v, error %v", p, err)
	}
	if _, err := parseStat("42 (short) S 1"); err == nil {
		t.Error("a short line was understood")
	}
}

// TestProcessStatusZombie checks that a process that has ended does not exist, reaped or not.
func TestProcessStatusZombie(t *testing.T) {
	c := exec.Command("true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := ProcessStatus(c.Process.Pid)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("a zombie is still there: %v", err)
		}
	}
}
