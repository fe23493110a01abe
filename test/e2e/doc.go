// Package e2e tests daxfsd from outside: it formats an emulated region, mounts it with the daxfsd
// command, and runs programs of other projects on the mount. test/kill tests what a killed daemon
// leaves.
//
// The package owns only its tests; test/harness mounts and unmounts.
//
// Regions and logs are below $TMPDIR. A mount is removed after its test, whether the test passed or
// not. -short makes the directory of a million files a tenth as large.
package e2e
