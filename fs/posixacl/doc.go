// Package posixacl implements POSIX access control lists (acl(5)) as attribute values. It decodes
// and encodes them, and computes how a list and a file mode affect each other. The rules are those
// of the kernel's fs/posix_acl.c.
//
// It owns the encoding and the rules of modes and inheritance. It never decides an access (the
// kernel does), and it does not read or store attributes (package fs does).
//
// Lists are values; no function changes a list in place. All functions are safe for concurrent use.
// None is on the hot path.
package posixacl
