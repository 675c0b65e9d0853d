package vm

// arch is the kind of processor that a machine has.
type arch struct {
	name    string   // as Go and Debian name it
	qemu    []string // the emulator, and what it emulates
	console string   // device of the serial line
}

var (
	amd64 = arch{"amd64", []string{"qemu-system-x86_64", "-M", "pc,accel=tcg", "-cpu", "max"}, "ttyS0"}
	// The real algorithm of pointer authentication takes most of an emulator's time.
	arm64 = arch{"arm64", []string{"qemu-system-aarch64", "-M", "virt,accel=tcg", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0"}
)
