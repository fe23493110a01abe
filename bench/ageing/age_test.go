package main

import "testing"

// TestRun ages a small filesystem a little. The figures must be plausible, and the same seed must
// give the same figures.
func TestRun(t *testing.T) {
	run2 := func() Result {
		res := Result{Util: 75, Churn: 1, Seed: 4, Size: 8 << 30, Writers: 2}
		if err := run(&res, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		res.Seconds, res.OpsPerSecond = 0, 0
		return res
	}
	a, b := run2(), run2()
	if a != b {
		t.Errorf("two runs differ: %+v and %+v", a, b)
	}
	if a.PMDMappable < 0.99 || a.FreeInAligned2M < 0.9 || a.Moved > 0.15 || a.Files == 0 || a.TableBytes > 8<<20 {
		t.Errorf("%+v", a)
	}
	if bad := (&Result{Util: 75, Moved: 0.2}).missed(); len(bad) != 4 {
		t.Errorf("missed: %q", bad)
	}
}
