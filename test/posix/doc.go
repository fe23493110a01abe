// Package posix compares daxfsd with POSIX and the man pages of Linux, call by call.
//
// It is one table of cases (cases, in table_test.go). A case gets a fresh directory, makes system
// calls there, and checks their results and the documented errnos. The whole table runs on every
// target: daxfsd mounted with each set of options, and two controls, ext4 on a loop device and
// tmpfs. A case that fails on a control is a wrong case, not a bug of daxfsd.
//
// A target declares the features that it has (need). Cases that need another feature do not run
// there; they are counted and logged. A case may list known differences, with the targets that have
// them. It must fail on those targets: if it passes there, the test fails, and the difference must
// be removed from the table.
//
// A case runs on an OS thread of its own, with its own working directory and umask. So names are
// relative, and users need no permission for the directories above. ctx.as runs a part of a case as
// another user, on a thread that is thrown away. A test that changes a whole process (limits,
// faults, images) runs in a child (child_test.go). A case that takes longer than caseLimit fails.
// -brief runs a few cases of each kind (briefCases), for emulated machines: test/vm.
//
// The package mounts only filesystems that end with its mount namespace; the loop device detaches
// itself.
package posix
