// Package attack makes the most expensive requests that a mount answers, as an unprivileged user
// with many threads, while another user works in a directory of their own. No request of the first
// user may make the second wait long. The attacker also asks for as much as it can; the daemon's
// memory must stay below a bound.
//
// An attack is an entry of a table: what root prepares, and what each thread of the attacker does
// over and over. Attackers have the lowest priority, so that the victim waits for the filesystem
// and not for a CPU.
package attack
