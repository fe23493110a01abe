// Package golden keeps golden images: regions that earlier versions of daxfsd wrote, which this
// version must be able to mount, check and read.
//
// testdata holds pairs of files. NAME.img.gz is a whole region, compressed. NAME.txt is its
// manifest: what fsck reports about the region before it is mounted, then every name in it with its
// attributes and the checksum of its content (manifest_test.go).
//
//	clean     unmounted, with a saved free map; all types of file, large directories, times, flags
//	crashed   a power failure: committed records whose lines were lost, orphans, half a truncation
//	atomic    a power failure with -o atomic: a committed record whose data is not in place yet
//	features  large folios, clones, long attributes, access control lists, ranges of bad memory
//
// The images of a release never change: a format that cannot read them is a mistake. A version that
// adds something to the format adds images of its own, with its version in their names:
//
//	go test ./test/golden -run TestBuild -write
//
// writes the images that are missing (build_test.go) and leaves the others alone.
//
// Until 0.1.0 is released, a change of the format may delete its images and write them anew.
//
// The package consists of tests only.
package golden
