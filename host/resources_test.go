package host

import (
	"os"
	"runtime"
	"sync"
	"testing"
)

// TestResourcesCountWhatIsOpen: more of each shows as more.
func TestResourcesCountWhatIsOpen(t *testing.T) {
	before := ownResources()
	if before.HeapBytes == 0 || before.Goroutines == 0 {
		t.Fatalf("got %+v", before)
	}
	const more = 50 // so that what else comes and goes does not matter
	stop := make(chan struct{})
	var waiting sync.WaitGroup
	for range more {
		waiting.Go(func() { <-stop })
	}
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	after := ownResources()
	close(stop)
	waiting.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if after.Goroutines < before.Goroutines+more/2 {
		t.Errorf("goroutines: %d, then %d with %d more", before.Goroutines, after.Goroutines, more)
	}
	if want := before.OpenFiles + 1; runtime.GOOS != "windows" && after.OpenFiles != want {
		t.Errorf("open files: %d with one more, want %d", after.OpenFiles, want)
	}
}
