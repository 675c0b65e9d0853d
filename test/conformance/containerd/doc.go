// Package containerd runs containerd's own client integration suite
// (integration/client, of the release that test/peers pins) against lifecycle, with
// our shim and with the stock one, and against containerd itself, the control.
package containerd
