package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine describes the machine of a measurement.
type machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  int64  `json:"memory_bytes"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Fio     string `json:"fio"`
	Version string `json:"version"` // daxfsd's version
	Load    string `json:"load"`    // load averages at the start, of 1, 5 and 15 minutes
	Uring   string `json:"uring"`   // why FUSE over io_uring is not available; "": it is
}

// describe collects the facts about the machine.
func (e *environment) describe() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown", Uring: noUring()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
				m.CPU = strings.TrimSpace(v)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		m.Memory = int64(si.Totalram) * int64(si.Unit)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], " ")
	}
	m.Fio = firstLine("fio", "--version")
	m.Version = firstLine(e.daxfsd, "--version")
	return m
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	l, _, _ := strings.Cut(string(out), "\n")
	return l
}

func (m *machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.0f GiB; Linux %s; %s; %s; %s; load %s",
		m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.Kernel, m.Go, m.Fio, m.Version, m.Load)
}

// available returns how many bytes of memory could be allocated.
func available() int64 {
	b, _ := os.ReadFile("/proc/meminfo")
	for l := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(l, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	return 0
}
