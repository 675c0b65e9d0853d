package netdev

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// native is the byte order of netlink messages.
var native = binary.NativeEndian

// conn is a connection to the rtnetlink of one network namespace.
type conn struct {
	fd  int
	seq uint32
}

// dial connects to that of this thread's namespace.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("open a netlink socket", err)
	}
	return &conn{fd: fd}, nil
}

// dialIn connects to that of ns. A socket stays in the namespace that it was
// made in; the thread that went there for it ends.
func dialIn(ns *os.File) (*conn, error) {
	type result struct {
		c   *conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{nil, os.NewSyscallError("setns", err)}
			return
		}
		c, err := dial()
		done <- result{c, err}
	}()
	r := <-done
	return r.c, r.err
}

func (c *conn) close() { unix.Close(c.fd) }

// do has the kernel do something.
func (c *conn) do(kind, flags uint16, body []byte) error {
	if err := c.send(kind, flags|unix.NLM_F_ACK, body); err != nil {
		return err
	}
	_, err := c.receive()
	return err
}

// dump has the kernel list something.
func (c *conn) dump(kind uint16, body []byte) ([]syscall.NetlinkMessage, error) {
	if err := c.send(kind, unix.NLM_F_DUMP, body); err != nil {
		return nil, err
	}
	return c.receive()
}

func (c *conn) send(kind, flags uint16, body []byte) error {
	c.seq++
	b := native.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = native.AppendUint16(b, kind)
	b = native.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, c.seq)
	b = native.AppendUint32(b, 0)
	return unix.Sendto(c.fd, append(b, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads the answers to what was sent last, up to the one that says that
// it was the last, or why there is none.
func (c *conn) receive() (list []syscall.NetlinkMessage, err error) {
	for {
		const most = 64 << 10 // what the kernel puts into one
		buf := make([]byte, most)
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Seq != c.seq:
			case m.Header.Type == unix.NLMSG_DONE:
				return list, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				if errno := -int32(native.Uint32(m.Data)); errno != 0 {
					return nil, unix.Errno(errno)
				}
				return list, nil
			default:
				list = append(list, m)
			}
		}
	}
}

// attribute is a struct rtattr with its value, padded.
func attribute(kind uint16, value []byte) []byte {
	b := native.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = append(native.AppendUint16(b, kind), value...)
	for len(b)%unix.RTA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}
