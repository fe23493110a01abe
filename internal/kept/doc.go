// Package kept caches a value that is expensive to compute and that anyone may ask for, however
// often. It owns the type Value. It computes nothing by itself, and starts no goroutine.
package kept
