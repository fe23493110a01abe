// Package machine builds a guest from Debian packages and boots it under QEMU with emulated
// persistent memory.
//
// Its nouns: the pins list the contents of the guest. A Guest is a kernel and an initramfs, built
// once and kept in a cache. A Device is a file of the host that the guest sees as persistent
// memory. A Boot is one start of the guest, which runs one shell script with its files and ends.
//
// The host must have QEMU, apt and dpkg (to fetch packages, not to install them), depmod, xz and
// zstd. KVM is not needed; it is used if a guest has booted with it.
//
// The package never leaves a process running: QEMU has a time limit, and dies with the process that
// started it, however that ends.
package machine
