package ociruntime

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// What errors need to know of ELF files (elf(5)); debug/elf would bring the
// formats of compression and debugging with it.

const elfMagic = "\x7fELF"

// elfInterpreter is the program that the kernel needs to run one that begins
// with head; "" when it needs none, or is no ELF file of this byte order.
func elfInterpreter(head []byte) string {
	// Where things are in the header, and in the one of a segment, of the 32-bit
	// and the 64-bit format.
	type format struct{ headers, size, count, offset, length int }
	const class, class64, little = 4, 2, 5
	const ehdr = 64
	if len(head) < ehdr || !bytes.HasPrefix(head, []byte(elfMagic)) || head[little] != 1 {
		return ""
	}
	f := format{headers: 28, size: 42, count: 44, offset: 4, length: 16}
	word := func(at uint64) uint64 {
		if at > uint64(len(head))-8 {
			return 0
		}
		return uint64(binary.LittleEndian.Uint32(head[at:]))
	}
	if head[class] == class64 {
		f = format{headers: 32, size: 54, count: 56, offset: 8, length: 32}
		word = func(at uint64) uint64 {
			if at > uint64(len(head))-8 {
				return 0
			}
			return binary.LittleEndian.Uint64(head[at:])
		}
	}
	at := word(uint64(f.headers))
	size := uint64(binary.LittleEndian.Uint16(head[f.size:]))
	for range binary.LittleEndian.Uint16(head[f.count:]) {
		const interp = 3
		if at > uint64(len(head))-8 {
			return ""
		}
		if binary.LittleEndian.Uint32(head[at:]) == interp {
			from, n := word(at+uint64(f.offset)), word(at+uint64(f.length))
			if from > uint64(len(head)) || n > uint64(len(head))-from {
				return ""
			}
			return string(bytes.TrimRight(head[from:from+n], "\x00"))
		}
		at += size
	}
	return ""
}

// machines are the names of those that images are made for.
var machines = map[uint16]string{
	3: "386", 8: "MIPS", 20: "PPC", 21: "PPC64", 22: "S390", 40: "ARM", 62: "X86_64", 183: "AARCH64", 243: "RISCV", 258: "LOONGARCH",
}

func machineName(n uint16) string {
	if name, ok := machines[n]; ok {
		return name
	}
	return fmt.Sprintf("machine %d", n)
}
