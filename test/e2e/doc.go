// Package e2e tests daxfsd from outside: it formats an emulated region, mounts
// it with the command itself, and lets programs that nobody here wrote work on it. What a killed
// daemon leaves is test/kill's to judge.
//
// It owns nothing but its tests; what mounts and takes mounts away is
// test/harness.
//
// Regions and logs live under $TMPDIR; a mount is taken away after its test,
// whatever happened. -short makes the directory of a million files a tenth as large.
package e2e
