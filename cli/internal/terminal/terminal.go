// Package terminal is the user's terminal: its size, its raw mode, and the keys
// that let go of a container without ending it.
package terminal

import (
	"os"

	"golang.org/x/term"
)

// File gives the file behind a stream if that is a terminal.
func File(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// Raw puts f into raw mode and returns what restores it. Restoring twice is
// harmless.
func Raw(f *os.File) (restore func(), err error) {
	state, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return func() {}, err
	}
	return func() { term.Restore(int(f.Fd()), state) }, nil
}

// Size is the terminal's height and width in characters; ok is false where f is
// no terminal or does not know.
func Size(f *os.File) (height, width uint, ok bool) {
	w, h, err := term.GetSize(int(f.Fd()))
	if err != nil || w <= 0 || h <= 0 {
		return 0, 0, false
	}
	return uint(h), uint(w), true
}

// ReadPassword reads a line without showing it.
func ReadPassword(f *os.File) (string, error) {
	b, err := term.ReadPassword(int(f.Fd()))
	return string(b), err
}
