package programs

import (
	"flag"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

var long = flag.Bool("long", false, "larger trees and longer runs")

func TestMain(m *testing.M) { harness.Main(m, nil) }

// choose is the size of a run: the first by default, the second with -long.
func choose[T any](short, longer T) T {
	if *long {
		return longer
	}
	return short
}

// round is for figures in tables.
func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
