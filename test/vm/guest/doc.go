// Package guest is the tests that run in a guest of test/vm, which has real /dev/dax0.0 and
// /dev/pmem0. The host builds it with `go test -c`, boots a guest with the devices that a
// test needs, and says with -test.run which one it is.
//
// Each kind of region (kinds, in kinds_test.go) is made as an administrator makes it, with ndctl,
// mkfs and mount. On it come: what daxfsd says of it; by each transport a part of test/posix, a
// load that checks every byte, a remount and fsck; and the pages that the daemon has it mapped by.
// Then there is what people do wrong, an export by NFS, and a round of the power cut, whose other
// half is the host's.
//
// It owns nothing but its tests. Nothing is skipped: what is missing fails.
package guest
