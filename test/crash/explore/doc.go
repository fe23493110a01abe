// Package explore is the crash explorer: it runs an operation of the filesystem with a
// recorder behind pmem's primitives, makes the images that a crash could leave at each
// fence and at the operation's end, and judges what the real recovery makes of each.
// docs/crash.md describes the method and its figures.
//
// The model in five nouns:
//
//   - A recording is a workload that ran: every store, flush and fence, and where each
//     operation (a step) began and returned.
//   - An image is what is durable at one moment, and which lines are pending.
//   - A state is the durable image and some choice of the pending lines, whole or torn.
//   - A judge mounts a state and compares it with the model's tree before and after.
//   - An explorer walks a recording with one scratch region, on which states are made
//     and taken back line by line.
package explore
