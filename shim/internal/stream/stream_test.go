package stream

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// collector is a Sink that keeps everything.
type collector struct {
	bytes.Buffer
	drained int
	news    chan struct{} // told at each Drained
}

func (c *collector) Write(p []byte) { c.Buffer.Write(p) }

func (c *collector) Drained() {
	c.drained++
	if c.news != nil {
		c.news <- struct{}{}
	}
}

func TestCopyCarriesAllAndTellsWhenItIsDrained(t *testing.T) {
	ours, theirs, err := OutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	c := &collector{news: make(chan struct{}, 100)}
	done := make(chan error, 1)
	go func() { done <- Copy(c, ours, nil) }()
	fmt.Fprint(theirs, "a line\n")
	<-c.news // nothing more is there, and the end has not come
	big := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() {
		theirs.Write(big)
		theirs.Close()
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			if want := "a line\n" + string(big); c.String() != want {
				t.Errorf("got %d bytes, want %d", c.Len(), len(want))
			}
			return
		case <-c.news:
		}
	}
}

func TestAFastStreamGetsALargerPipe(t *testing.T) {
	for _, row := range []struct {
		name       string
		said, size int
	}{
		{"what fits in the small buffer leaves the pipe as it is", smallBuf, largeBuf},
		{"more at once makes it larger", smallBuf + 1, fastPipe},
	} {
		t.Run(row.name, func(t *testing.T) {
			ours, theirs, err := OutPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			if _, err := theirs.Write(make([]byte, row.said)); err != nil {
				t.Fatal(err)
			}
			c := &collector{news: make(chan struct{}, 100)}
			done := make(chan error, 1)
			go func() { done <- Copy(c, ours, nil) }()
			<-c.news
			size, err := unix.FcntlInt(theirs.Fd(), unix.F_GETPIPE_SZ, 0)
			if err != nil || size != row.size {
				t.Errorf("the pipe has room for %d bytes, want %d; %v", size, row.size, err)
			}
			theirs.Close()
			if err := <-done; err != nil || c.Len() != row.said {
				t.Errorf("got %d bytes, want %d; %v", c.Len(), row.said, err)
			}
		})
	}
}

func TestClosingEndsACopy(t *testing.T) {
	ours, theirs, err := OutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	done := make(chan error, 1)
	go func() { done <- Copy(&collector{}, ours, nil) }()
	time.Sleep(10 * time.Millisecond)
	ours.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAFifoThatNobodyHasOpenedIsNotAtItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := os.NewFile(uintptr(fd), path)
	defer r.Close()
	c := &collector{}
	done := make(chan error, 1)
	go func() { done <- Copy(c, r, nil) }()
	select {
	case err := <-done:
		t.Fatalf("the copy has ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := os.WriteFile(path, []byte("late"), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || c.String() != "late" {
		t.Errorf("got %q, %v", c.String(), err)
	}
}

func TestPumpGoesOnReadingWhenItsReaderIsGone(t *testing.T) {
	ours, theirs, err := OutPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	dst, gone, err := InPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	gone.Close()
	done := make(chan error, 1)
	go func() { done <- (&Pump{Dst: dst, Src: ours}).Run() }()
	if _, err := theirs.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("the writer is held up: %v", err)
	}
	theirs.Close()
	if err := <-done; err == nil {
		t.Error("nobody says that the reader was gone")
	}
}
