// Package attack has an unprivileged user ask the most expensive things that a mount answers, with
// many threads at once, while another user works in a directory of their own: nothing that the
// first asks may make the second wait long. It also asks for as much as it can, and looks at the
// memory of the daemon.
//
// An attack is an entry of a table: what root prepares, and what each thread of the attacker does
// over and over. Attackers have the lowest priority, so that what the victim waits for is the
// filesystem and not a CPU.
package attack
