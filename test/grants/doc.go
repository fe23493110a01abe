// Package grants proves on real mounts, with processes of its own and the kernel's locks, that
// direct mapping takes nothing from anybody: no byte of another file, no block, no time of others.
//
//   - kill_test.go kills clients of the protocol between any two of its steps.
//   - daemon_test.go kills, aborts and unmounts the daemon under programs that map files.
//   - stress_test.go lets programs do everything at once to files whose blocks name their owners.
//   - share_test.go passes leases on among processes.
//   - inherit_test.go passes mappings on by fork(2), exec(2), close(2) and SCM_RIGHTS.
//   - hostile_test.go is clients that lie and locks that nobody was promised.
//
// The raw client (client_test.go) makes each step of docs/direct.md by itself, so that it can die
// or lie at any of them; programs with good manners use the package direct. Every client is a
// process that the test starts (harness.Children), since the kernel's locks and mappings end with
// processes. The package owns only its tests; test/harness mounts and kills.
//
//	go test ./test/grants -v -rounds 200 -restarts 50 -ops 20000 -passes 100000 -seed 7
package grants
