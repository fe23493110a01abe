// Package machine builds a guest of Debian packages and boots it under QEMU with
// emulated persistent memory.
//
// Its nouns: the pins say what the guest is made of; a Guest is a kernel and an
// initramfs, made once and kept in a cache; a Device is a file of the host that the
// guest sees as persistent memory; a Boot is one start of the guest, which runs one
// shell script with its files and ends.
//
// What it needs of the host are QEMU, apt and dpkg (to fetch packages, not to install them),
// depmod, xz and zstd. It is right without KVM; KVM is used if a guest has booted with it.
//
// It never leaves anything running: QEMU has a time limit, and dies with the process that
// started it, however that ends.
package machine
