package vm

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/vm/machine"
)

var (
	rounds = flag.Int("rounds", 5, "number of rounds; each cuts the power")
	seed   = flag.Uint64("seed", 0, "seed of the workers' calls and of the moments when the power is cut; 0: from the clock")
	long   = flag.Bool("long", false, "run the whole of test/posix on device-dax too")
)

// childEnv makes this test binary boot a guest that does not end, for TestNothingIsLeft.
const childEnv = "DAXFSD_VM_CHILD"

var (
	guest *machine.Guest
	bin   string // directory of the programs that are built for the guest
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := start(m)
	if errors.Is(err, machine.ErrUnavailable) {
		text := fmt.Sprintf("THE VM TESTS DID NOT RUN: %v\n", err)
		fmt.Fprint(os.Stderr, "\n", text, "\n")
		if name := os.Getenv("DAXFSD_VM_NOT_RUN"); name != "" {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		if ci := os.Getenv("CI"); ci != "" && ci != "false" && ci != "0" {
			fmt.Fprintf(os.Stderr, "CI is %s: that is a failure\n", ci)
			code = 1
		}
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func start(m *testing.M) (code int, err error) {
	ctx := context.Background()
	if guest, err = machine.Prepare(ctx, os.Stderr); err != nil {
		return 0, err
	}
	if pidFile := os.Getenv(childEnv); pidFile != "" {
		return 0, bootForEver(ctx, pidFile)
	}
	accel, err := guest.Accelerator(ctx)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "Linux %s under QEMU (%s)\n", guest.Kernel, accel)
	if bin, err = os.MkdirTemp("", "daxfsd-vm-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	for _, args := range [][]string{
		{"build", "-trimpath", "-o", "daxfsd", "./cmd/daxfsd"},
		{"test", "-c", "-trimpath", "-ldflags=-s -w", "-o", "posix.test", "./test/posix"},
		{"test", "-c", "-trimpath", "-ldflags=-s -w", "-o", "guest.test", "./test/vm/guest"},
	} {
		for i := range args {
			if args[i] == "-o" {
				args[i+1] = filepath.Join(bin, args[i+1])
			}
		}
		cmd := exec.Command("go", args...)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return m.Run(), nil
}

// inGuest runs tests of test/vm/guest in a guest with the given devices, and fails if they fail. A
// boot that an error of the emulator has ended is repeated once.
func inGuest(t *testing.T, limit time.Duration, run string, parts []string, devices ...machine.Device) {
	t.Helper()
	for n := 1; ; n++ {
		var out bytes.Buffer
		code, err := boot(&machine.Boot{Parts: parts, Limit: limit, Output: &out, Devices: devices}, run, nil).Run(t.Context())
		if errors.Is(err, machine.ErrEmulator) && n == 1 {
			t.Logf("once more, because %v", err)
			continue
		}
		if err != nil || code != 0 {
			t.Fatalf("in the guest: exit code %d, %v\n%s", code, err, out.String())
		}
		if !strings.Contains(out.String(), "--- PASS: ") {
			t.Fatalf("in the guest no test ran:\n%s", out.String())
		}
		if testing.Verbose() {
			t.Log("\n" + out.String())
		}
		return
	}
}

// boot fills in a Boot that runs tests of test/vm/guest.
func boot(b *machine.Boot, run string, env []string) *machine.Boot {
	b.Guest = guest
	if b.Files == nil {
		b.Files = map[string]string{}
	}
	for _, name := range []string{"daxfsd", "posix.test", "guest.test"} {
		b.Files[name] = filepath.Join(bin, name)
	}
	b.Job = fmt.Sprintf("export DAXFSD_TEST_BINARY=/job/daxfsd %s\nexec ./guest.test -test.v -test.timeout %v -test.run '%s'",
		strings.Join(env, " "), b.Limit, run)
	return b
}

// nvdimm returns an NVDIMM of gib GiB with a file of its own.
func nvdimm(t *testing.T, gib int64) machine.Device {
	return machine.Device{File: filepath.Join(t.TempDir(), "nvdimm"), Size: gib << 30}
}
