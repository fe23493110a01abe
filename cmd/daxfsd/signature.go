package main

import "bytes"

// signature describes how something on a block device or in an image file is recognised: by magic
// bytes at an offset in bytes. A negative offset counts from the end.
type signature struct {
	name  string
	off   int64
	magic string
	// confirm, if set, must agree. It is for magics that are too short to be trusted.
	confirm func(get func(off int64, n int) []byte) bool
}

// signatures lists what mkfs can name when it refuses to overwrite it. Offsets and magics are those
// of libblkid. The first match counts, so special ones precede general ones (a LUKS header before a
// partition table, NTFS and exFAT before a boot sector).
var signatures = []signature{
	{name: "a daxfsd filesystem", off: 0, magic: "DAXFS\x1a\r\n"},
	// The magic of the kernel module's daxfs is a little-endian number: "dax" and the digit of a
	// version.
	{name: "a daxfs filesystem (of the kernel module)", off: 1, magic: "xad", confirm: func(get func(int64, int) []byte) bool {
		b := get(0, 1)
		return len(b) == 1 && b[0] >= '0' && b[0] <= '9'
	}},
	{name: "an xfs filesystem", off: 0, magic: "XFSB"},
	{name: "an ext2, ext3 or ext4 filesystem", off: 0x438, magic: "\x53\xef"},
	{name: "a btrfs filesystem", off: 0x10040, magic: "_BHRfS_M"},
	{name: "an f2fs filesystem", off: 0x400, magic: "\x10\x20\xf5\xf2"},
	{name: "a bcachefs filesystem", off: 0x1018, magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	{name: "a bcache device", off: 0x1018, magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"},
	{name: "a nilfs2 filesystem", off: 0x406, magic: "\x34\x34", confirm: func(get func(int64, int) []byte) bool {
		return bytes.Equal(get(0x400, 4), []byte{2, 0, 0, 0}) // revision 2.0
	}},
	{name: "an erofs filesystem", off: 0x400, magic: "\xe2\xe1\xf5\xe0"},
	{name: "a squashfs filesystem", off: 0, magic: "hsqs"},
	{name: "a cramfs filesystem", off: 0, magic: "\x45\x3d\xcd\x28"},
	{name: "a romfs filesystem", off: 0, magic: "-rom1fs-"},
	{name: "a jfs filesystem", off: 0x8000, magic: "JFS1"},
	{name: "a reiserfs filesystem", off: 0x10034, magic: "ReIsEr"},
	{name: "a gfs2 filesystem", off: 0x10000, magic: "\x01\x16\x19\x70"},
	{name: "an ocfs2 filesystem", off: 0x2000, magic: "OCFSV2"},
	{name: "an iso9660 filesystem", off: 0x8001, magic: "CD001"},
	{name: "a udf filesystem", off: 0x8001, magic: "BEA01"},
	{name: "an hfs+ filesystem", off: 0x400, magic: "H+\x00\x04"},
	{name: "an apfs container", off: 0x20, magic: "NXSB"},
	{name: "a zfs label", off: 0x20000, magic: "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
	{name: "a zfs label", off: 0x20000, magic: "\x00\x00\x00\x00\x00\xba\xb1\x0c"},
	{name: "a LUKS volume", off: 0, magic: "LUKS\xba\xbe"},
	{name: "a BitLocker volume", off: 3, magic: "-FVE-FS-"},
	{name: "an LVM physical volume", off: 0x200, magic: "LABELONE", confirm: lvm(0x200)},
	{name: "an LVM physical volume", off: 0, magic: "LABELONE", confirm: lvm(0)},
	{name: "an LVM physical volume", off: 0x400, magic: "LABELONE", confirm: lvm(0x400)},
	{name: "an LVM physical volume", off: 0x600, magic: "LABELONE", confirm: lvm(0x600)},
	{name: "a swap area", off: 0xff6, magic: "SWAPSPACE2"},
	{name: "a swap area", off: 0xff6, magic: "SWAP-SPACE"},
	{name: "a swap area", off: 0xfff6, magic: "SWAPSPACE2"}, // 64 KiB pages
	{name: "a hibernation image", off: 0xff6, magic: "S1SUSPEND"},
	{name: "a Linux software RAID member", off: 0x1000, magic: "\xfc\x4e\x2b\xa9"},
	{name: "a Linux software RAID member", off: 0, magic: "\xfc\x4e\x2b\xa9"},
	{name: "a famfs filesystem", off: 0, magic: "\xff\x82\xb2\x87\x00\x00\x00\x00"},
	{name: "a PMDK pool (libpmemobj)", off: 0, magic: "PMEMOBJ\x00"},
	{name: "a PMDK pool (libpmemblk)", off: 0, magic: "PMEMBLK\x00"},
	{name: "a PMDK pool (libpmemlog)", off: 0, magic: "PMEMLOG\x00"},
	{name: "a PMDK pool (libpmemcto)", off: 0, magic: "PMEMCTO\x00"},
	{name: "an NVDIMM namespace label (devdax)", off: 0x1000, magic: "NVDIMM_DAX_INFO"},
	{name: "an NVDIMM namespace label (fsdax or devdax)", off: 0x1000, magic: "NVDIMM_PFN_INFO"},
	{name: "a block translation table (sector mode namespace)", off: 0x1000, magic: "BTT_ARENA_INFO\x00"},
	{name: "a GPT partition table", off: 0x200, magic: "EFI PART"},
	{name: "a GPT partition table", off: 0x1000, magic: "EFI PART"}, // 4 KiB sectors
	{name: "a GPT partition table", off: -0x200, magic: "EFI PART"}, // the backup at the end
	{name: "an ntfs filesystem", off: 3, magic: "NTFS    "},
	{name: "an exfat filesystem", off: 3, magic: "EXFAT   "},
	{name: "a vfat filesystem", off: 0x52, magic: "FAT32   "},
	{name: "a vfat filesystem", off: 0x36, magic: "FAT16   "},
	{name: "a vfat filesystem", off: 0x36, magic: "FAT12   "},
	{name: "a qcow2 image", off: 0, magic: "QFI\xfb"},
	{name: "a boot sector or MBR partition table", off: 0x1fe, magic: "\x55\xaa"},
}

func lvm(off int64) func(get func(int64, int) []byte) bool {
	return func(get func(int64, int) []byte) bool { return bytes.Equal(get(off+24, 4), []byte("LVM2")) }
}

// recognise names what is on a region of size bytes, or returns "". read fills b from offset off;
// where it fails, nothing is recognised.
func recognise(size int64, read func(off int64, b []byte) error) string {
	get := func(off int64, n int) []byte {
		b := make([]byte, n)
		if off < 0 || off+int64(n) > size || read(off, b) != nil {
			return nil
		}
		return b
	}
	for _, s := range signatures {
		off := s.off
		if off < 0 {
			off += size
		}
		if bytes.Equal(get(off, len(s.magic)), []byte(s.magic)) && (s.confirm == nil || s.confirm(get)) {
			return s.name
		}
	}
	// A new zfs pool has used few of the 128 slots of its first label.
	for off := int64(0x20000); off < 0x40000; off += 1024 {
		if m := get(off, 8); bytes.Equal(m, []byte("\x0c\xb1\xba\x00\x00\x00\x00\x00")) || bytes.Equal(m, []byte("\x00\x00\x00\x00\x00\xba\xb1\x0c")) {
			return "a zfs label"
		}
	}
	// A daxfsd whose first superblock is gone still has the second one, in the last block.
	if last := size&^4095 - 4096; bytes.Equal(get(last, 8), []byte(signatures[0].magic)) {
		return signatures[0].name
	}
	return ""
}
