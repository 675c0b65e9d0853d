// Hello is the program in the image that 'make demo' runs: it says what a
// container is, seen from inside.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	host, _ := os.Hostname()
	fmt.Printf("Hello from container %s: I am process %d.\n", host, os.Getpid())
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil {
		fmt.Printf("I see %d mounts; my root is %s.\n", strings.Count(string(mounts), "\n"), strings.Fields(string(mounts))[0])
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
				fmt.Printf("My address is %s.\n", ip)
			}
		}
	}
}
