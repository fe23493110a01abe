//go:build invariants || race

package invariants

// Enabled reports whether expensive checks are compiled in.
const Enabled = true
