package programs

import (
	"flag"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

var long = flag.Bool("long", false, "larger trees and longer runs")

func TestMain(m *testing.M) { harness.Main(m, nil) }

// choose returns the size of a run: short by default, longer with -long.
func choose[T any](short, longer T) T {
	if *long {
		return longer
	}
	return short
}

// round rounds a duration for a table.
func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
