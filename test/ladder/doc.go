// Package ladder holds the house rules that the compiler does not know, as tests:
// which way imports run, where unsafe code, assembly, mappings, logging and FUSE
// may live, and how files are called. Each failure says what to do instead.
package ladder
