//go:build race

package websocket

// raceDetector reports whether this test was built with it: pools then drop
// what they are given, at random, and what allocates cannot be told.
const raceDetector = true
