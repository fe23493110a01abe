// Package posixacl is POSIX access control lists (acl(5)) as attribute values: it decodes and
// encodes them, and says what a list and a file mode do to each other. The rules are those of the
// kernel's fs/posix_acl.c.
//
// It owns the encoding and the rules of modes and inheritance. It never judges an access, and
// reads and stores no attributes: the kernel and fs do that.
//
// Lists are values that no function changes. All functions are safe for concurrent use. None is on
// the hot path.
package posixacl
