// Package lint holds the house rules that the compiler does not know, as tests:
// which way imports run, where unsafe code, assembly, mappings, logging and FUSE
// may live, how files are called, how imports are ordered and comments wrapped, and where documents
// link to. Each failure says what to do instead.
package lint
