// Package layout is the on-media format: it only encodes and decodes, without I/O. docs/format.md
// describes the same structures in prose. A change to one is a change to both, with a new version.
//
// The model in five nouns:
//
//   - A line is 64 aligned bytes: {seq, 52 bytes of payload, crc32c}. It is the unit of change:
//     every metadata structure is made of lines, and a line changes only as a whole.
//   - A block is 4 KiB: 64 lines of metadata, or file data.
//   - A chunk is one aligned PMD-sized (2 MiB) piece of the region. All of it is metadata or all of
//     it is data, so that large folios stay whole.
//   - A lane is a slice of the redo journal with two record slots.
//   - An inode is four lines. Its number follows from its position in the region.
//
// All integers are little-endian. Offsets are region offsets in bytes, except where a name contains
// Block. The package keeps no state and is safe for concurrent use.
package layout
