package ociruntime

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"testing"
)

func TestTheInterpreterIsThatOfDebugELF(t *testing.T) {
	for _, file := range []string{"/bin/sh", "/bin/busybox", "/usr/bin/env"} {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && file == "/usr/bin/env" {
			continue // a machine of busybox alone
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if s := f.Section(".interp"); s != nil {
			b, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			want = string(bytes.TrimRight(b, "\x00"))
		}
		if got := elfInterpreter(data); got != want {
			t.Errorf("%s needs %q, want %q", file, got, want)
		}
	}
	// A program of 32 bits: one segment, PT_INTERP, 9 bytes at 84.
	b := make([]byte, 96)
	copy(b, "\x7fELF\x01\x01\x01")
	le := binary.LittleEndian
	le.PutUint32(b[28:], 52)
	le.PutUint16(b[42:], 32)
	le.PutUint16(b[44:], 1)
	le.PutUint32(b[52:], 3)
	le.PutUint32(b[56:], 84)
	le.PutUint32(b[68:], 9)
	copy(b[84:], "/lib/ld.a")
	if got := elfInterpreter(b); got != "/lib/ld.a" {
		t.Errorf("%q", got)
	}
}

func FuzzInterpreter(f *testing.F) {
	data, err := os.ReadFile("/bin/sh")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:1024])
	f.Fuzz(func(_ *testing.T, head []byte) { elfInterpreter(head) })
}
