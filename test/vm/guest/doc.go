// Package guest contains the tests that run in a guest of test/vm, which has a real /dev/dax0.0 and
// /dev/pmem0. The host builds it with `go test -c`, boots a guest with the devices that a test
// needs, and selects the test with -test.run.
//
// Each kind of region (kinds, in kinds_test.go) is made as an administrator makes it, with ndctl,
// mkfs and mount. On each, the tests check the output of daxfsd info; over each transport a part of
// test/posix, and a load that checks every byte, with a remount and fsck; and the size of the pages
// by which the daemon has mapped the region. Other tests map files' own memory on device-dax
// (TestDirect), and cover common mistakes, an export by NFS, and a round of the power cut, whose
// other half runs on the host.
//
// The package owns only its tests. Nothing is skipped: a test fails if a program or device is
// missing.
package guest
