// Package vm runs daxfsd in guests with emulated persistent memory: on a real /dev/dax0.0 with
// pages of 2 MiB and of 1 GiB, on files of ext4 and xfs mounted with dax, on virtio-pmem and on
// tmpfs. Programs map files' own memory there by such pages. It also cuts the guests' power, and
// exports a mount by NFS.
//
// Three packages work together. test/vm/machine builds the guest from the Debian packages that
// test/vm/machine/pins names, and boots it under QEMU. test/vm/guest contains the tests that run in
// the guest; it is built here and put into the initramfs with daxfsd and test/posix. This package
// boots a guest for each test with the devices that the test needs, and passes if the guest's exit
// code is 0.
//
// The power cut is QEMU killed while four workers of test/oracle work, and a program stores to a
// file by grants. The region is a file of the
// host, mapped shared. So every store that the guest has executed survives, as with persistent
// memory behind a cache that is flushed at power failure; acknowledgements come out by serial
// ports. The test covers recovery from any moment of the program's order. It cannot reveal a
// missing flush or fence: the crash explorer, test/crash, does.
//
// Without KVM everything is emulated, 10 to 50 times slower and with much noise: no result here is
// a measurement of speed. Each boot has a time limit, and QEMU dies with the tests.
//
// If a mirror, package or program for the guest is missing, the tests do not run. They then print a
// warning, write it to the file that DAXFSD_VM_NOT_RUN names, and fail if CI is set.
//
//	test/vm/run -- COMMAND     runs a command in a guest interactively
package vm
