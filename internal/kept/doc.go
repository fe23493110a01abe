// Package kept keeps what is expensive to find out and may be asked for by anybody, however often.
// It owns one Value; it never finds anything out by itself, and starts no goroutine.
package kept
