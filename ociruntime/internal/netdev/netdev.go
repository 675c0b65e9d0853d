// Package netdev moves a network device of the host into the network namespace
// of a container (runtime-spec, config-linux, "Network Devices"), and sets one up,
// by rtnetlink(7).
//
// Above it stands ociruntime. It knows nothing of containers, and makes no
// device and no address that was not there before.
package netdev

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Move moves device of this network namespace into ns, where it is called name.
// A %d in the name stands for the first number that is free there. The device
// keeps its permanent addresses of global scope, and is up afterwards.
func Move(ns *os.File, device, name string) error {
	host, err := dial()
	if err != nil {
		return err
	}
	defer host.close()
	inside, err := dialIn(ns)
	if err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer inside.close()
	index, err := host.index(device)
	if err != nil {
		return err
	}
	addrs, err := host.permanent(index)
	if err != nil {
		return fmt.Errorf("list the addresses: %w", err)
	}
	before, err := inside.links()
	if err != nil {
		return err
	}
	if _, taken := before[name]; taken {
		return fmt.Errorf("name it %s: %w", name, unix.EEXIST)
	}
	if err := host.move(index, ns, name); err != nil {
		return fmt.Errorf("name it %s: %w", name, err)
	}
	index, err = inside.arrived(before)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := inside.add(index, a); err != nil {
			return fmt.Errorf("give it its address again: %w", err)
		}
	}
	if err := inside.up(index); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// Up sets a device of ns up.
func Up(ns *os.File, device string) error {
	inside, err := dialIn(ns)
	if err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	defer inside.close()
	index, err := inside.index(device)
	if err != nil {
		return err
	}
	return inside.up(index)
}

// index finds a device by its name.
func (c *conn) index(device string) (int32, error) {
	links, err := c.links()
	if err != nil {
		return 0, err
	}
	index, ok := links[device]
	if !ok {
		return 0, unix.ENODEV
	}
	return index, nil
}

// links are the devices of the namespace.
func (c *conn) links() (map[string]int32, error) {
	replies, err := c.dump(unix.RTM_GETLINK, ifInfo(0, 0, 0))
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	links := map[string]int32{}
	for _, m := range replies {
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil || m.Header.Type != unix.RTM_NEWLINK {
			return nil, errors.Join(errors.New("list the network devices: the kernel's answer is none"), err)
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_IFNAME {
				links[strings.TrimRight(string(a.Value), "\x00")] = int32(native.Uint32(m.Data[4:]))
			}
		}
	}
	return links, nil
}

// arrived is the device that was not there before.
func (c *conn) arrived(before map[string]int32) (int32, error) {
	after, err := c.links()
	if err != nil {
		return 0, err
	}
	for name, index := range after {
		if _, old := before[name]; !old {
			return index, nil
		}
	}
	return 0, errors.New("the device did not arrive")
}

// address is what is kept of an address.
type address struct {
	family, bits byte
	attrs        []byte
}

// permanent lists the permanent addresses of global scope that a device has.
func (c *conn) permanent(index int32) ([]address, error) {
	replies, err := c.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, err
	}
	var list []address
	for _, m := range replies {
		// struct ifaddrmsg: family, prefix length, flags, scope, index.
		if len(m.Data) < unix.SizeofIfAddrmsg || int32(native.Uint32(m.Data[4:])) != index || m.Data[3] != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, err
		}
		flags := uint32(m.Data[2])
		a := address{family: m.Data[0], bits: m.Data[1]}
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFA_FLAGS:
				flags = native.Uint32(attr.Value)
			case unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST, unix.IFA_ANYCAST, unix.IFA_RT_PRIORITY:
				a.attrs = append(a.attrs, attribute(attr.Attr.Type, attr.Value)...)
			}
		}
		if flags&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		const kept = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
		a.attrs = append(a.attrs, attribute(unix.IFA_FLAGS, native.AppendUint32(nil, flags&kept))...)
		list = append(list, a)
	}
	return list, nil
}

// move moves a device and names it in one step, so that it is at no time there
// by another name. The kernel sets it down on the way.
func (c *conn) move(index int32, ns *os.File, name string) error {
	body := ifInfo(index, 0, 0)
	body = append(body, attribute(unix.IFLA_NET_NS_FD, native.AppendUint32(nil, uint32(ns.Fd())))...)
	body = append(body, attribute(unix.IFLA_IFNAME, append([]byte(name), 0))...)
	return c.do(unix.RTM_NEWLINK, 0, body)
}

func (c *conn) add(index int32, a address) error {
	body := []byte{a.family, a.bits, 0, unix.RT_SCOPE_UNIVERSE}
	body = native.AppendUint32(body, uint32(index))
	return c.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append(body, a.attrs...))
}

func (c *conn) up(index int32) error {
	return c.do(unix.RTM_NEWLINK, 0, ifInfo(index, unix.IFF_UP, unix.IFF_UP))
}

// ifInfo is struct ifinfomsg: family, type, index, flags, and which flags to change.
func ifInfo(index int32, flags, change uint32) []byte {
	b := make([]byte, 4, unix.SizeofIfInfomsg)
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, change)
}
