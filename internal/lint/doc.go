// Package lint holds the rules of this repository that the compiler does not check, as tests: the
// direction of imports, where unsafe code, assembly, mappings, logging and FUSE may be, the names
// of files, the order of imports, the width of comments, and links in documents. Each failure says
// what to do instead.
package lint
