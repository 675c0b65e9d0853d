package ociruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The machine is the code of the child: a loop over a table of system calls,
// written in assembly so that it needs no stack, no runtime and no address but
// its table's. Where the table's words are, offsets in bytes:
//
//	 0 number of the call; -1 makes the first argument the result
//	 8 six arguments
//	56 bit i: argument i is the address of its value (a register)
//	64 address that takes the result
//	72 address of the next step
//	80 address of the step to go on with when the errno is in the mask
//	88 mask: bit e for errno e below 64; bit 0 is "less than the least result"
//	96 least result that is success, usually 0
//
// On any other errno it writes {address of the step, errno} to the descriptor
// that the first word of the data names, and exits with 1.
const (
	codeBase = 0x400000 // where the code is mapped
	dataBase = 0x500000 // where header, table, registers and data are mapped
	header   = 64       // descriptor of the status pipe, 16 bytes of report
	stepSize = 104

	codeOffset = 0x10000 // in the file; a multiple of every page size
	dataOffset = 0x20000
	codeMax    = 1024
)

// machine is never called: its instructions are copied into the child's image.
// They end with the marker.
//
//lint:ignore U1000 machineAddr, in assembly, uses it.
func machine()

// machineAddr is the address of machine's first instruction.
func machineAddr() uintptr

var marker = []byte("gantry\x00\x00")

// machineCode copies the machine's instructions out of our own text.
func machineCode() ([]byte, error) {
	start := machineAddr()
	text := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), start)), codeMax)
	end := bytes.Index(text, marker)
	if end < 0 {
		return nil, errors.New("the machine has no end marker")
	}
	return bytes.Clone(text[:end]), nil
}

// endedAddr is where the child has its handler of signals.
func endedAddr() (uint64, error) {
	code, err := machineCode()
	return codeBase + uint64(len(code)) - endedSize, err
}

// ident begins a 64-bit little-endian ELF file of version 1.
const ident = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// elfHeader makes the first page of a static ELF executable with one segment of
// code, one of data, and a stack that is not executable (ELF-64 object file format, 1998).
func elfHeader(code, data int) []byte {
	const ehdr, phdr = 64, 56
	le := binary.LittleEndian
	h := []byte(ident)
	h = le.AppendUint16(h, 2) // ET_EXEC
	h = le.AppendUint16(h, elfMachine)
	h = le.AppendUint32(h, 1)
	h = le.AppendUint64(h, codeBase) // entry
	h = le.AppendUint64(h, ehdr)     // program headers
	h = le.AppendUint64(h, 0)        // no sections
	h = le.AppendUint32(h, 0)
	for _, v := range []uint16{ehdr, phdr, 3, 0, 0, 0} {
		h = le.AppendUint16(h, v)
	}
	segment := func(kind, flags uint32, offset, addr, size uint64) {
		h = le.AppendUint32(h, kind)
		h = le.AppendUint32(h, flags)
		for _, v := range []uint64{offset, addr, addr, size, size, codeOffset} {
			h = le.AppendUint64(h, v)
		}
	}
	const load, gnuStack = 1, 0x6474e551
	segment(load, 5, codeOffset, codeBase, uint64(code))
	segment(load, 6, dataOffset, dataBase, uint64(data))
	segment(gnuStack, 6, 0, 0, 0)
	return h
}

// imageFile puts code and data into a memfd that can be executed and never
// again written (CVE-2019-5736: what the container can reach as /proc/PID/exe
// before its own program runs is this, and nothing of the host's).
func imageFile(data []byte) (fd int, err error) {
	code, err := machineCode()
	if err != nil {
		return -1, err
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate("gantry-plan", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 every memfd is executable
		fd, err = unix.MemfdCreate("gantry-plan", flags)
	}
	if err != nil {
		return -1, fmt.Errorf("make the plan's image: memfd_create: %w", err)
	}
	parts := []struct {
		at   int64
		data []byte
	}{{0, elfHeader(len(code), len(data))}, {codeOffset, code}, {dataOffset, data}}
	for _, p := range parts {
		if n, err := unix.Pwrite(fd, p.data, p.at); err != nil || n != len(p.data) {
			unix.Close(fd)
			return -1, fmt.Errorf("make the plan's image: wrote %d of %d bytes: %w", n, len(p.data), err)
		}
	}
	// F_SEAL_WRITE, which also looks for writers that are there already, waits
	// for every processor; there are none.
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal the plan's image: %w", err)
	}
	return fd, nil
}
