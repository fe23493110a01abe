// Package invariants tells whether expensive self-checks are compiled in.
//
// It owns only the constant Enabled. A check guarded by it compiles to nothing in an ordinary
// build:
//
//	if invariants.Enabled {
//		t.check()
//	}
//
// Enabled is true with the build tag invariants, and under the race detector.
package invariants
