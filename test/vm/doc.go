// Package vm runs daxfsd in guests with emulated persistent memory: on real /dev/dax0.0 with pages
// of 2 MiB and of 1 GiB, on files of ext4 and xfs mounted with dax, on virtio-pmem and on
// tmpfs; cuts their power; and exports a mount by NFS.
//
// Three parts work together. test/vm/machine makes the guest of the Debian packages that
// test/vm/machine/pins names, and boots it under QEMU. test/vm/guest is the tests that run in
// it, built here and put into its initramfs with daxfsd and test/posix. This package boots
// a guest for each of them with the devices it needs, and judges by its exit code.
//
// The power cut is QEMU killed while four workers of test/oracle work. The region is a file of
// the host, mapped shared, so every store that the guest has executed survives, as with
// persistent memory; what is acknowledged comes out by serial ports. So it tests recovery
// from any moment of the program's order. It cannot reveal a missing flush or fence, for
// which there is the crash explorer, test/crash.
//
// Without KVM everything is emulated, 10 to 50 times slower and noisy: nothing here is a
// statement about speed. Each boot has a time limit, and QEMU dies with the tests.
//
// Where there is no mirror, package or program to make a guest of, the tests have not run: they say
// so loudly, write it to the file that DAXFSD_VM_NOT_RUN names, and fail if CI is set.
//
//	test/vm/run -- COMMAND     runs a command in a guest with a person watching
package vm
