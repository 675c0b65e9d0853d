package inflate

import "math/bits"

// An entry of a table says what the bits that lead to it mean:
//
//	bits 0..5    how many bits it takes, extra bits included
//	bit  6       literal: bits 16..23
//	bit  7       special: bit 8 a subtable of 2^(bits 9..12) entries at bits 16..31,
//	             bit 13 the end of the block, bit 14 what no code leads to
//	else         a length or a distance: bits 16..31 its base, bits 8..11 how many
//	             of the bits are before the extra ones
type entry uint32

const (
	entryBits          = 63
	literal      entry = 1 << 6
	special      entry = 1 << 7
	subtable     entry = 1 << 8
	endOfBlock   entry = 1 << 13
	invalid      entry = 1 << 14
	invalidEntry       = special | invalid | 1
)

func (e entry) bits() uint  { return uint(e) & entryBits }
func (e entry) value() uint { return uint(e >> 16) }

// extra is the value of a length or a distance whose first bit is b's lowest.
func (e entry) extra(b uint64) uint {
	return e.value() + uint(b&(1<<e.bits()-1)>>(e>>8&15))
}

// Sizes of tables: what codes longer than a table's bits need below it is bounded
// by the codes there can be (zlib's examples/enough.c: 286 symbols with 11 bits
// first need 2342 entries, 30 with 8 need 402, 19 of 7 bits at most need no more
// than the first).
const (
	maxCode    = 15
	litBits    = 11
	distBits   = 8
	lengthBits = 7
	litSize    = 2342
	distSize   = 402
	lengthSize = 1 << lengthBits
	numLit     = 286
	numDist    = 30
)

// litSymbols, distSymbols and lengthSymbols are the entries of symbols, without
// the bits of their codes (RFC 1951, 3.2.5).
var litSymbols, distSymbols, lengthSymbols = symbols()

func symbols() (lit [288]entry, dist [32]entry, length [19]entry) {
	for i := range 256 {
		lit[i] = literal | entry(i)<<16
	}
	lit[256] = special | endOfBlock
	base := 3
	for i := range 28 {
		n := max(0, i/4-1)
		lit[257+i] = entry(base)<<16 | entry(n)
		base += 1 << n
	}
	lit[285] = 258 << 16
	base = 1
	for i := range numDist {
		n := max(0, i/2-1)
		dist[i] = entry(base)<<16 | entry(n)
		base += 1 << n
	}
	for _, none := range []*entry{&lit[286], &lit[287], &dist[30], &dist[31]} {
		*none = special | invalid
	}
	for i := range length {
		length[i] = entry(i) << 16
	}
	return lit, dist, length
}

// build fills table, whose first look takes first bits, for codes of the given
// lengths. As in compress/flate a set of codes must be complete, but for that of a
// single code of one bit and the empty one.
func build(table []entry, first int, lengths []uint8, symbols []entry) bool {
	var count, next [maxCode + 1]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	longest, space, used := 0, 1, 0
	for n := 1; n <= maxCode; n++ {
		space = space*2 - count[n]
		if space < 0 {
			return false
		}
		if count[n] > 0 {
			longest = n
		}
		next[n] = used
		used += count[n]
	}
	if space != 0 && used != 0 && !(used == 1 && longest == 1) {
		return false
	}
	if used <= 1 {
		for i := range 1 << first {
			table[i] = invalidEntry
		}
		if used == 0 {
			return true
		}
	}
	var sorted [288]uint16
	for s, n := range lengths {
		if n > 0 {
			sorted[next[n]] = uint16(s)
			next[n]++
		}
	}

	// The codes in order, their bits reversed, as the first bit of a code comes
	// first. Up to first bits the table doubles with each bit of length.
	code, i := uint(0), 0
	size := 1
	for n := 1; n <= first; n++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for range count[n] {
			table[code] = symbols[sorted[i]].of(n)
			code = following(code, n)
			i++
		}
	}
	// Longer ones go to a subtable for each of their first bits.
	end, start, below := 1<<first, 0, 0
	prefix := ^uint(0)
	for n := first + 1; n <= longest; n++ {
		for left := count[n]; left > 0; left-- {
			if p := code & (1<<first - 1); p != prefix {
				prefix, start = p, end
				// As large as the codes that begin with prefix fill.
				below = n - first
				for room := 1<<below - left; room > 0 && below+first < longest; {
					below++
					room = room*2 - count[first+below]
				}
				end += 1 << below
				if end > len(table) {
					return false
				}
				table[prefix] = special | subtable | entry(below)<<9 | entry(start)<<16 | entry(first)
			}
			e := symbols[sorted[i]].of(n - first)
			for at := code >> first; at < 1<<below; at += 1 << (n - first) {
				table[start+int(at)] = e
			}
			code = following(code, n)
			i++
		}
	}
	return true
}

// of is a symbol's entry where its code takes n more bits.
func (e entry) of(n int) entry {
	if e&(literal|special) == 0 {
		e |= entry(n) << 8
	}
	return e + entry(n)
}

// following is the code of n bits after code, reversed both; it is all ones, and
// stays so, after the last.
func following(code uint, n int) uint {
	zeros := ^code & (1<<n - 1)
	if zeros == 0 {
		return code
	}
	top := uint(1) << (bits.Len(zeros) - 1)
	return code&(top-1) | top
}
