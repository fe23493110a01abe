// Package posix holds daxfsd to what POSIX and the man pages of Linux say, call by call.
//
// It is one table of cases (cases, in table_test.go). A case has a fresh directory, works
// there by system calls, and judges what they do and each errno that is named for them. The
// whole table runs on every target: daxfsd mounted in each of its ways, and two controls, ext4
// on a loop device and tmpfs. A case that fails on a control is a wrong case, not a finding.
//
// What a target cannot do it does not declare (need); cases that ask for it are counted and
// logged, and not run. A case with known differences must fail on the targets that they
// name: when it passes there, the test fails, and the difference is to be taken out.
//
// A case runs in an OS thread of its own, with its own working directory and umask, so
// names are relative and nobody needs to pass the directories above. ctx.as runs a part of
// it as another user, in a thread that is thrown away. What changes a whole process (limits,
// faults, images) is a child (child_test.go). A case that takes longer than caseLimit fails.
// -brief runs a few of each kind (briefCases), for machines that are emulated: test/vm.
//
// It mounts only what dies with its mount namespace; the loop device detaches itself.
package posix
