package fusefs

import "unsafe"

// nameString is b as a string without a copy: for a callee that copies it before
// b changes.
func nameString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
