// Package docker translates a user's wishes from the words of the Docker Engine
// API (container.Config and container.HostConfig) into those of package bundle.
// The texts of its errors are the ones that Docker's users know.
package docker
