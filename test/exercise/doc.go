// Package exercise does random things.
package exercise
