// Package buildkit pins the current release of BuildKit, as package peers pins
// other strangers; it asks for other releases of what they share.
package buildkit
