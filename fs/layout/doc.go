// Package layout is the on-media format: pure encoding and decoding, no I/O.
// docs/format.md describes the same structures in prose; a change here is a
// change there, with a version.
//
// The model in five nouns:
//
//   - A line is 64 bytes, aligned, and the unit of everything that changes:
//     {seq, 52 bytes of payload, crc32c}. Every metadata structure is made of
//     lines and a line changes only as a whole.
//   - A block is 4 KiB: 64 lines of metadata, or file data.
//   - A chunk is one aligned PMD-sized (2 MiB) piece. A chunk is metadata or it
//     is not; metadata never sits next to data, so that large folios stay whole.
//   - A lane is a slice of the redo journal with two record slots.
//   - An inode is four lines; its number is its place.
//
// All integers are little-endian. The package is stateless and safe for
// concurrent use; offsets are region offsets in bytes unless a name says Block.
package layout
