// Package races lets two operations race on one page of one file, and compares the file afterwards
// with the effects of both.
//
// Each changing operation of the table (ops_test.go) has 512 bytes of the page to itself, so the
// outcome of every pair is known: both changes are visible in the mapping, to read(2), to O_DIRECT,
// and after the file was closed and opened again. A reading operation looks at the other side's
// bytes. It must never find bytes older than a change that had returned before.
//
// TestPairs lets each pair run freely, on daxfsd in each cache mode and over each transport, and on
// ext4 as the control. TestStopped makes both operations wait for a stopped daemon, so that their
// requests may be served in either order: a few rounds find what takes thousands when running
// freely. TestWriteBesideStore is the case that was reported as a bug: stores, and 200 writes to
// the same page.
//
// docs/caches.md describes which cache may hold what.
package races
