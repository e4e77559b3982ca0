//go:build !race

package application

const raceDetector = false
