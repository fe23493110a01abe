//go:build amd64 && !purego && !race

package pmem

import (
	"os"
	"strings"
	"testing"
)

// TestDetectFlush compares CPUID with what the kernel reports, and runs those of the three
// instructions that the processor has.
func TestDetectFlush(t *testing.T) {
	for ebx, want := range map[uint32]uintptr{0: howCLFLUSH, 1 << 23: howCLFLUSHOPT, 1 << 24: howCLWB, 3 << 23: howCLWB} {
		if got := detectFlush(ebx); got != want {
			t.Errorf("detectFlush(%#x) = %d", ebx, got)
		}
	}
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skip(err)
	}
	flags := " " + strings.Join(strings.Fields(string(b)), " ") + " "
	best := "clflush"
	for i, name := range []string{"clflush", "clflushopt", "clwb"} {
		if strings.Contains(flags, " "+name+" ") {
			best = name
			r := newMemory(t, 8192)
			copy(r.w, "data")
			flushLinesAsm(&r.w[0], 8192, uintptr(i))
			flushLinesAsm(&r.w[0], 8192, uintptr(i)|howFence)
			if string(r.w[:4]) != "data" {
				t.Errorf("%s lost data", name)
			}
		}
	}
	if flushName() != best {
		t.Errorf("found %s, the kernel has %s", flushName(), best)
	}
}
