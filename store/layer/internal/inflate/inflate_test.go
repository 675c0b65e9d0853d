package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"
	"testing/iotest"
)

// ours inflates all of it, by Fill.
func ours(src io.Reader) ([]byte, error) {
	z, err := NewReader(src)
	if err != nil {
		return nil, err
	}
	var all []byte
	buf := new(Buffer)
	for {
		b, err := z.Fill(buf)
		all = append(all, b...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// stock inflates all of it with the standard library.
func stock(src io.Reader) ([]byte, error) {
	z, err := gzip.NewReader(src)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// endReader gives as much as there is room for, and the end with the last of it.
type endReader struct{ rest []byte }

func (r *endReader) Read(p []byte) (int, error) {
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	if len(r.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// same fails unless ours and the standard library's give the same of data.
func same(t *testing.T, data []byte) {
	t.Helper()
	want, wantErr := stock(bytes.NewReader(data))
	for name, src := range map[string]io.Reader{
		"at once": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data)), "with its end": &endReader{data},
	} {
		got, err := ours(src)
		if (err == nil) != (wantErr == nil) || errors.Is(err, io.ErrUnexpectedEOF) != errors.Is(wantErr, io.ErrUnexpectedEOF) {
			t.Fatalf("%s: %v; the standard library: %v, of %x", name, err, wantErr, data[:min(len(data), 500)])
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes, of which some are others than the %d of the standard library", name, len(got), len(want))
		}
		if short := min(len(got), len(want)); !bytes.Equal(got[:short], want[:short]) {
			t.Fatalf("%s: %v, and before that not what the standard library has", name, err)
		}
	}
}

// kinds of data, small and large, that have every form of block and match.
func kinds() map[string][]byte {
	rng := rand.New(rand.NewChaCha8([32]byte{7}))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	words := make([]byte, 0, 700_000)
	for len(words) < 700_000 {
		words = append(words, noise[rng.IntN(500):][:2+rng.IntN(9)]...)
		words = append(words, ' ')
	}
	skewed := make([]byte, 200_000)
	for i := range skewed {
		skewed[i] = byte(rng.ExpFloat64() * 12) // rare bytes have long codes
	}
	far := slices.Concat(noise[:1000], make([]byte, 31_000), noise[:1000], noise[:32768], noise[:32768], noise[:258])
	short := []byte{}
	for d := 1; d < 20; d++ {
		short = append(short, bytes.Repeat(noise[d:2*d], 300/d)...)
	}
	return map[string][]byte{
		"nothing": {}, "a byte": {42}, "noise": noise, "words": words, "zeros": make([]byte, 1<<20), "skewed": skewed,
		"matches of 32 kB": far, "matches of few bytes": short, "text": bytes.Repeat([]byte("the quick brown fox\n"), 2000),
		"mixed": slices.Concat(noise[:50_000], words[:90_000], make([]byte, 70_000), skewed[:100_000]),
	}
}

func zip(t testing.TB, level int, hdr gzip.Header, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Header = hdr
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryKindOfDataComesBack(t *testing.T) {
	all := []byte{}
	for name, data := range kinds() {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			t.Run(fmt.Sprintf("%s, level %d", name, level), func(t *testing.T) {
				z := zip(t, level, gzip.Header{}, data)
				same(t, z)
				all = append(all, z...)
				r, err := NewReader(bytes.NewReader(z))
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(iotest.OneByteReader(r)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("Read gives %d bytes, %v; want %d", len(got), err, len(data))
				}
			})
		}
	}
	t.Run("all of them, as members of one", func(t *testing.T) { same(t, all) })
}

// TestOtherWritersAreRead has zlib's blocks, which are larger than Go's.
func TestOtherWritersAreRead(t *testing.T) {
	for name, data := range kinds() {
		for _, level := range []string{"-1", "-6", "-9"} {
			cmd := exec.Command("gzip", level)
			cmd.Stdin = bytes.NewReader(data)
			z, err := cmd.Output()
			if err != nil {
				t.Fatalf("gzip: %v", err)
			}
			t.Run(name+", gzip "+level, func(t *testing.T) { same(t, z) })
		}
	}
}

// damagedSeeds are short streams of all forms.
func damagedSeeds(t testing.TB) [][]byte {
	text := []byte("a text that has a text in it that has a text, and 0123456789abcdef\n")
	named := gzip.Header{Name: "name", Comment: "comment", Extra: []byte("extra")}
	crc := []byte{0x1f, 0x8b, 8, flagHeaderCRC, 0, 0, 0, 0, 0, 3}
	crc = binary.LittleEndian.AppendUint16(crc, uint16(crc32.ChecksumIEEE(crc)))
	skewed := kinds()["skewed"][:3000]
	return [][]byte{
		zip(t, gzip.NoCompression, gzip.Header{}, text),
		zip(t, gzip.BestCompression, named, text),
		zip(t, gzip.BestCompression, gzip.Header{}, skewed),
		zip(t, gzip.HuffmanOnly, gzip.Header{}, skewed),
		append(crc, zip(t, 1, gzip.Header{}, text)[10:]...),
		slices.Concat(zip(t, 1, gzip.Header{}, text), zip(t, 9, named, text)),
		append(zip(t, 1, gzip.Header{}, text), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		append(zip(t, 1, gzip.Header{}, text), "trailing"...),
	}
}

func TestWhatIsDamagedIsRefusedAsByTheStandardLibrary(t *testing.T) {
	for _, z := range damagedSeeds(t) {
		for i := range z {
			same(t, z[:i])
		}
		step := max(1, len(z)/100)
		for i := 0; i < len(z); i += step {
			for bit := range 8 {
				z[i] ^= 1 << bit
				same(t, z)
				z[i] ^= 1 << bit
			}
		}
	}
}

func TestAMatchDoesNotReachIntoTheMemberBefore(t *testing.T) {
	first := zip(t, 9, gzip.Header{}, []byte("abcdefgh"))
	// A block of fixed codes: length 3, distance 4, end of block.
	second := append(slices.Clone(first[:10]), 0x03, 0x62, 0x00, 0, 0, 0, 0, 0, 0, 0, 0)
	same(t, append(slices.Clone(first), second...))
	if _, err := ours(bytes.NewReader(append(slices.Clone(first), second...))); err == nil {
		t.Error("no error")
	}
}

func TestAnErrorOfTheSourceIsTold(t *testing.T) {
	z := zip(t, 6, gzip.Header{}, kinds()["words"])
	for _, n := range []int{0, 5, 500, len(z) - 4} {
		broken := errors.New("broken")
		_, err := ours(io.MultiReader(bytes.NewReader(z[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// FuzzAgainstTheStandardLibrary wants the same bytes and the same refusals.
func FuzzAgainstTheStandardLibrary(f *testing.F) {
	for _, z := range damagedSeeds(f) {
		f.Add(z)
		f.Add(z[10:])
	}
	head := zip(f, 1, gzip.Header{}, nil)[:10]
	f.Fuzz(func(t *testing.T, data []byte) {
		same(t, data)
		// The checksum keeps a fuzzer out: what is bare deflate is read by itself.
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), 1<<20))
		if len(want) == 1<<20 {
			return
		}
		got, err := ours(bytes.NewReader(slices.Concat(head, data)))
		if wantErr == nil {
			if !bytes.Equal(got, want) && !errors.Is(err, gzip.ErrHeader) && !bytes.HasPrefix(got, want) {
				t.Fatalf("%d bytes, %v; the standard library has %d", len(got), err, len(want))
			}
			return
		}
		if err == nil {
			t.Fatalf("no error; the standard library: %v", wantErr)
		}
		if short := min(len(got), len(want)); !bytes.Equal(got[:short], want[:short]) {
			t.Fatalf("%v, and before that not what the standard library has", err)
		}
	})
}

// The input ends, at the end of the buffer for it, where zeros in its place would be
// three hundred lengths of codes.
func TestCodesThatAreCutOff(t *testing.T) {
	head := zip(t, 1, gzip.Header{}, nil)[:10]
	const size = inSize - 10 - 5 - 4
	z := append(slices.Clone(head), 0, size&0xff, size>>8, ^size&0xff, ^size>>8&0xff)
	z = append(z, make([]byte, size)...)
	z = binary.LittleEndian.AppendUint32(z, 1|2<<1|29<<3|29<<8|1<<13|1<<26|1<<29)
	same(t, z)
}
