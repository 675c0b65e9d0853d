package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes in bytes.
const (
	history = 32 << 10 // what a match may reach back
	bufSize = 256 << 10
	// slack is how much the fast loop writes, at most, between two looks at the room.
	slack  = 320
	inSize = 64 << 10
	// far is how much of the input the fast loop may take between two looks.
	far = 24
	// pad is how many zeros follow the end of the input, to be read in its place.
	pad = 32
)

// Buffer takes what is inflated, after what came before it. A place in it, or in
// the input, is cut to its size, a power of two, where it is used: that costs less
// than to have it checked, and nothing is ever beyond it.
type Buffer [bufSize + 8]byte

type inBuffer [inSize + pad]byte

// input is the source, with a few bits that have been taken out of it already.
type input struct {
	src      io.Reader
	buf      *inBuffer // zeros from end on
	pos, end int
	ended    error // why src gives no more
	before   int64 // bytes that were read before buf[0]

	bits uint64 // the next bits are the lowest
	n    uint   // how many there are for sure
}

// more reads until there is enough for the fast loop, or the end.
func (in *input) more() {
	if in.ended != nil {
		return
	}
	in.pos -= int(in.n >> 3) // whole bytes are given back: they are taken again from where they are then
	in.n &= 7
	in.bits &= 1<<in.n - 1
	copy(in.buf[:], in.buf[in.pos:in.end])
	in.before += int64(in.pos)
	in.pos, in.end = 0, in.end-in.pos
	for in.ended == nil && in.end <= far {
		var n int
		n, in.ended = in.src.Read(in.buf[in.end : len(in.buf)-pad])
		in.end += n
	}
	clear(in.buf[in.end : in.end+pad])
}

// refill makes sure of 56 bits, beyond the end zeros.
func (in *input) refill() {
	if in.pos > in.end-far {
		in.more()
	}
	in.bits |= binary.LittleEndian.Uint64(in.buf[in.pos:]) << (in.n & 63)
	in.pos += int((63 - in.n) >> 3)
	in.n |= 56
}

// take takes k of the bits that are there.
func (in *input) take(k uint) uint {
	v := uint(in.bits & (1<<k - 1))
	in.bits >>= k
	in.n -= k
	return v
}

// over says that bits were taken which the input does not have.
func (in *input) over() bool { return in.pos-int(in.n>>3) > in.end }

// cut is the error of an input that ended too early.
func (in *input) cut() error {
	if in.ended == nil || errors.Is(in.ended, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return in.ended
}

// align gives whole bytes back, and throws the rest of the last one away.
func (in *input) align() {
	in.pos -= int(in.n >> 3)
	in.bits, in.n = 0, 0
}

// bytes copies what is there of the input into p, at least one byte; it must be aligned.
func (in *input) bytes(p []byte) (int, error) {
	if in.pos >= in.end {
		in.more()
	}
	if in.pos >= in.end {
		return 0, in.cut()
	}
	n := copy(p, in.buf[in.pos:in.end])
	in.pos += n
	return n, nil
}

// whole fills p.
func (in *input) whole(p []byte) error {
	for len(p) > 0 {
		n, err := in.bytes(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (in *input) corrupt(what string) error {
	return fmt.Errorf("deflate, about byte %d: %s", in.before+int64(in.pos)-int64(in.n>>3), what)
}

// state is where a stream of deflate stands.
type state uint8

const (
	atBlock state = iota
	inStored
	inCodes
	atEnd
)

// deflate is a stream of deflate.
type deflate struct {
	input
	state  state
	last   bool
	stored int // bytes of the stored block to come
	lit    [litSize]entry
	dist   [distSize]entry
}

// fill inflates into out from w on, where out[from:w] is what the stream gave
// before, until out is full or the stream ends, io.EOF. It gives the new w.
func (d *deflate) fill(out *Buffer, from, w int) (int, error) {
	var err error
	for w <= bufSize-slack && err == nil {
		switch d.state {
		case atBlock:
			err = d.block()
		case inStored:
			w, err = d.copyStored(out, w)
		case inCodes:
			w, err = d.codes(out, from, w)
		case atEnd:
			return w, io.EOF
		}
	}
	return w, err
}

// block reads the head of a block.
func (d *deflate) block() error {
	if d.last {
		d.state = atEnd
		return nil
	}
	d.refill()
	d.last = d.take(1) == 1
	var err error
	switch d.take(2) {
	case 0:
		err = d.storedBlock()
	case 1:
		d.fixed()
	case 2:
		err = d.dynamic()
	default:
		err = d.corrupt("unknown type of block")
	}
	if d.over() {
		return d.cut()
	}
	return err
}

func (d *deflate) storedBlock() error {
	d.take(d.n & 7)
	d.refill()
	n, inverse := d.take(16), d.take(16)
	if d.over() {
		return d.cut()
	}
	d.align()
	if n != ^inverse&0xffff {
		return d.corrupt("length of stored block is not confirmed")
	}
	d.stored, d.state = int(n), inStored
	return nil
}

func (d *deflate) copyStored(out *Buffer, w int) (int, error) {
	if d.stored == 0 {
		d.state = atBlock
		return w, nil
	}
	n, err := d.bytes(out[w:min(bufSize, w+d.stored)])
	d.stored -= n
	return w + n, err
}

// fixed sets the codes of RFC 1951, 3.2.6.
func (d *deflate) fixed() {
	var lengths [288 + 32]uint8
	for i := range 288 {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	for i := range 32 {
		lengths[288+i] = 5
	}
	build(d.lit[:], litBits, lengths[:288], litSymbols[:])
	build(d.dist[:], distBits, lengths[288:], distSymbols[:])
	d.state = inCodes
}

// order is that of the lengths of codes of lengths.
var order = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block (RFC 1951, 3.2.7).
func (d *deflate) dynamic() error {
	nlit, ndist, nlen := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if nlit > numLit || ndist > numDist {
		return d.corrupt("too many codes")
	}
	var lengths [numLit + numDist]uint8
	for i := range nlen {
		if i&7 == 0 {
			d.refill()
		}
		lengths[order[i]] = uint8(d.take(3))
	}
	var table [lengthSize]entry
	if !build(table[:], lengthBits, lengths[:19], lengthSymbols[:]) {
		return d.corrupt("bad codes of lengths")
	}
	clear(lengths[:19])
	for i := 0; i < nlit+ndist; {
		d.refill()
		e := table[d.bits&(lengthSize-1)]
		d.take(e.bits())
		if d.over() {
			return d.cut()
		}
		if e&special != 0 {
			return d.corrupt("bad length of code")
		}
		if e.value() < 16 {
			lengths[i] = uint8(e.value())
			i++
			continue
		}
		n, value := 0, uint8(0)
		switch e.value() {
		case 16:
			if i == 0 {
				return d.corrupt("no length to repeat")
			}
			n, value = 3+int(d.take(2)), lengths[i-1]
		case 17:
			n = 3 + int(d.take(3))
		default:
			n = 11 + int(d.take(7))
		}
		if i+n > nlit+ndist {
			return d.corrupt("too many lengths of codes")
		}
		for range n {
			lengths[i] = value
			i++
		}
	}
	if d.over() {
		return d.cut()
	}
	if !build(d.lit[:], litBits, lengths[:nlit], litSymbols[:]) {
		return d.corrupt("bad codes of literals and lengths")
	}
	if !build(d.dist[:], distBits, lengths[nlit:nlit+ndist], distSymbols[:]) {
		return d.corrupt("bad codes of distances")
	}
	d.state = inCodes
	return nil
}

// codes inflates the block until its end or that of out.
func (d *deflate) codes(out *Buffer, from, w int) (int, error) {
	for w <= bufSize-slack {
		if d.pos > d.end-far {
			d.more()
		}
		var err error
		if d.pos <= d.end-far {
			w, err = d.fast(out, from, w)
		} else {
			w, err = d.slow(out, from, w)
		}
		if err != nil || d.state != inCodes {
			return w, err
		}
	}
	return w, nil
}

// fast inflates while both the end of the input and that of out are far.
func (d *deflate) fast(out *Buffer, from, w int) (int, error) {
	in, pos, bits, n := d.buf, d.pos, d.bits, d.n
	lit, dist := &d.lit, &d.dist
	inLimit, outLimit := d.end-far, bufSize-slack
	var err error
loop:
	for pos <= inLimit && w <= outLimit {
		bits |= in.load64(pos) << (n & 63)
		pos += int((63 - n) >> 3)
		n |= 56
		e := lit[bits&(1<<litBits-1)]
		if e&literal != 0 {
			// Two looks take 22 bits at most; that leaves enough for a length.
			bits >>= e.bits()
			n -= e.bits()
			out.put(w, e)
			w++
			e = lit[bits&(1<<litBits-1)]
			if e&literal != 0 {
				bits >>= e.bits()
				n -= e.bits()
				out.put(w, e)
				w++
				e = lit[bits&(1<<litBits-1)]
				if e&literal != 0 {
					bits >>= e.bits()
					n -= e.bits()
					out.put(w, e)
					w++
					continue
				}
			}
		}
		if e&special != 0 {
			if e&(endOfBlock|invalid) == 0 {
				bits >>= litBits
				n -= litBits
				e = lit[e.value()+uint(bits)&(1<<(e>>9&15)-1)]
			}
			if e&literal != 0 {
				bits >>= e.bits()
				n -= e.bits()
				out.put(w, e)
				w++
				continue
			}
			if e&special != 0 {
				bits >>= e.bits()
				n -= e.bits()
				if e&endOfBlock != 0 {
					d.state = atBlock
				} else {
					err = errCode
				}
				break loop
			}
		}
		length := int(e.extra(bits))
		bits >>= e.bits()
		n -= e.bits()

		if n < 28 {
			bits |= in.load64(pos) << (n & 63)
			pos += int((63 - n) >> 3)
			n |= 56
		}
		e = dist[bits&(1<<distBits-1)]
		if e&special != 0 {
			if e&invalid != 0 {
				err = errCode
				break loop
			}
			bits >>= distBits
			n -= distBits
			e = dist[e.value()+uint(bits)&(1<<(e>>9&15)-1)]
			if e&special != 0 {
				err = errCode
				break loop
			}
		}
		distance := int(e.extra(bits))
		bits >>= e.bits()
		n -= e.bits()
		r := w - distance
		if r < from {
			err = errDistance
			break loop
		}
		end := w + length
		switch {
		case distance >= 16:
			for {
				a, b := out.load64(r), out.load64(r+8)
				out.store64(w, a)
				out.store64(w+8, b)
				w += 16
				r += 16
				if w >= end {
					break
				}
			}
		case distance >= 8:
			for w < end {
				out.store64(w, out.load64(r))
				w += 8
				r += 8
			}
		case distance == 1:
			v := uint64(out[r]) * 0x0101010101010101
			for w < end {
				out.store64(w, v)
				w += 8
			}
		default:
			// Each store is right in its first distance bytes, and the next one
			// writes over the rest.
			for w < end {
				out.store64(w, out.load64(r))
				w += distance
				r += distance
			}
		}
		w = end
	}
	d.pos, d.bits, d.n = pos, bits, n
	if err != nil {
		err = d.corrupt(err.Error())
	}
	return w, err
}

func (b *Buffer) load64(i int) uint64 {
	i &= bufSize - 1
	return binary.LittleEndian.Uint64(b[i : i+8])
}

func (b *Buffer) store64(i int, v uint64) {
	i &= bufSize - 1
	binary.LittleEndian.PutUint64(b[i:i+8], v)
}

func (b *Buffer) put(i int, e entry) { b[i&(bufSize-1)] = byte(e >> 16) }

func (b *inBuffer) load64(i int) uint64 {
	i &= inSize - 1
	return binary.LittleEndian.Uint64(b[i : i+8])
}

var (
	errCode     = errors.New("bits that are no code")
	errDistance = errors.New("distance reaches before the beginning")
)

// slow inflates one symbol where the input ends.
func (d *deflate) slow(out *Buffer, from, w int) (int, error) {
	d.refill()
	e := d.look(d.lit[:], litBits)
	switch {
	case e&invalid != 0 && e&special != 0:
		return w, d.wrong(errCode)
	case d.over():
		return w, d.cut()
	case e&literal != 0:
		out.put(w, e)
		return w + 1, nil
	case e&special != 0:
		d.state = atBlock
		return w, nil
	}
	length := int(e.extra(d.bits))
	d.take(e.bits())
	d.refill()
	e = d.look(d.dist[:], distBits)
	if e&special != 0 {
		return w, d.wrong(errCode)
	}
	distance := int(e.extra(d.bits))
	d.take(e.bits())
	if d.over() {
		return w, d.cut()
	}
	if w-distance < from {
		return w, d.wrong(errDistance)
	}
	for range length {
		out[w] = out[w-distance]
		w++
	}
	return w, nil
}

// look finds the entry of the next code; it takes the bits of one that is not a
// length or a distance.
func (d *deflate) look(table []entry, first int) entry {
	e := table[d.bits&(1<<first-1)]
	if e&special != 0 && e&(endOfBlock|invalid) == 0 {
		d.take(uint(first))
		e = table[e.value()+uint(d.bits)&(1<<(e>>9&15)-1)]
	}
	if e&(literal|special) != 0 {
		d.take(e.bits())
	}
	return e
}

// wrong is what is wrong with the input, unless it is that there is no more.
func (d *deflate) wrong(err error) error {
	if d.over() {
		return d.cut()
	}
	return d.corrupt(err.Error())
}
