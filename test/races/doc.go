// Package races lets two operations race on one page of one file, and holds what is there
// afterwards to what both of them did.
//
// Each operation of the table (ops_test.go) that changes the file has 512 bytes of the page to
// itself, so the outcome of every pair is known: both changes are there, in the mapping, to
// read(2), to O_DIRECT, and when the file has been closed and opened again. An operation that
// reads looks at the other's bytes and must never find older ones than those whose change had
// returned before.
//
// TestPairs lets each pair run freely, on daxfsd in each cache mode and over each transport, and on
// ext4 as the control. TestStopped has both wait for a stopped daemon, which makes the order in
// which their requests are served anyone's guess: few rounds find what running freely finds in
// thousands. TestOneWriter is the case of issue: a store and 200 writes to the same page.
//
// docs/caches.md says which cache may hold what.
package races
