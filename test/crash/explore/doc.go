// Package explore is the crash explorer. It runs an operation of the filesystem with a recorder
// behind pmem's primitives, builds the images that a crash could leave at each fence and at the
// operation's end, and judges the filesystem that the real recovery makes from each image.
// docs/crash.md describes the method and its figures.
//
// The model in five nouns:
//
//   - A recording is a workload that ran: every store, flush and fence, and the moments where each
//     operation (a step) began and returned.
//   - An image holds the durable bytes at one moment, and the pending stores to each line.
//   - A state is the durable image plus some choice of the pending lines, whole or torn.
//   - A judge mounts a state and compares it with the model's tree before and after the step.
//   - An explorer walks a recording. It makes the states on one scratch region and takes them back
//     line by line.
package explore
