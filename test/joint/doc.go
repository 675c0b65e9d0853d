// Package joint holds every joint of Gantry against a stranger: the stock docker
// command line on our engine and ours on the stock dockerd, our engine on the
// stock containerd, ctr and the stock dockerd on our lifecycle, each shim under
// each daemon, each runtime under each shim.
//
// One list of behaviours (suite_test.go) is what a user of the docker command
// line expects; every pair of command line and daemon is held to it.
package joint
