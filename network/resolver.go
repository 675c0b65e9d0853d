package network

// resolver answers 127.0.0.11 in one sandbox.
type resolver struct{}

func (r *resolver) close() {
}

func (n *Networks) serveNames(b *box, ns *namespace) error { return nil }
