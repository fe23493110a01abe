package main

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"4096": 4096, "1B": 1, "4KiB": 4096, "4k": 4096, "1M": 1 << 20, "16MiB": 16 << 20,
		"1GiB": 1 << 30, "4G": 4 << 30, "1.5GiB": 3 << 29, "2T": 2 << 40, "2TiB": 2 << 40, "7EiB": 7 << 60, "8EiB": math.MaxInt64, "9999999P": math.MaxInt64, "1 GiB": 1 << 30,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "G", "-1", "0", "1GB", "1XiB", "1.3", "0x10", "1e3", "9999999Z", ".5G", "1/2G"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 B", 4095: "3.99 KiB", 4096: "4 KiB", 1 << 30: "1 GiB", 3 << 29: "1.50 GiB", 5 << 40: "5 TiB",
	} {
		if got := formatSize(in); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", in, got, want)
		}
	}
}
