// Package direct tests the Go package of that name from outside: on mounted filesystems, together
// with programs that use the mount, with children that inherit mappings, and with io_uring.
//
// The package owns only its tests; test/harness mounts and unmounts.
package direct
