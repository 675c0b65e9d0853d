package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
)

// guardFile says that forwarding was off before a daemon of this state put it on.
func (n *Networks) guardFile() string { return filepath.Join(n.cfg.State, "forwarding-was-off") }

// turnOn sets a forwarding parameter of the host. If it was off, the rules will
// keep the host from forwarding what is not ours (rules.guard).
func (n *Networks) turnOn(name string) error {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return fmt.Errorf("read sysctl %s: %w", name, err)
	}
	if strings.TrimSpace(string(b)) != "0" {
		return nil
	}
	if err := os.WriteFile(n.guardFile(), nil, 0o600); err != nil {
		return fmt.Errorf("turn on forwarding: %w", err)
	}
	n.rules.guard = true
	return sysctl(name, "1")
}

// turnOff ends forwarding if it was off before: without the tables, nothing keeps
// the host from being a router.
func (n *Networks) turnOff() error {
	if !n.rules.guard {
		return nil
	}
	return errors.Join(
		sysctl("net/ipv4/ip_forward", "0"),
		sysctlIfThere("net/ipv6/conf/all/forwarding", "0"),
		os.Remove(n.guardFile()),
	)
}

// warnOfForeignFirewall says what the host's own firewall and ours do not know of
// each other. With nftables a packet passes only if every table lets it: nothing
// that this daemon may write lets its packets through a chain that drops what it
// does not know. And a published port is translated before the host's input
// chains, which therefore never see it.
func (n *Networks) warnOfForeignFirewall() {
	chains, err := n.rules.conn.ListChains()
	if err != nil {
		n.log.Warn("the host's firewall cannot be read", "error", err)
		return
	}
	for _, c := range chains {
		drops := c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop
		if c.Hooknum == nil || !drops || c.Table.Name == n.cfg.Bridge {
			continue
		}
		switch {
		case *c.Hooknum == *nftables.ChainHookForward:
			n.log.Warn("the host's firewall drops forwarded packets: containers reach nothing and published ports are closed until it accepts what comes from and goes to the bridge",
				"table", c.Table.Name, "chain", c.Name, "bridge", n.cfg.Bridge,
				"accept", fmt.Sprintf("nft insert rule ip %[1]s %[2]s iifname %[3]s accept; nft insert rule ip %[1]s %[2]s oifname %[3]s accept", c.Table.Name, c.Name, n.cfg.Bridge))
		case *c.Hooknum == *nftables.ChainHookInput && !n.cfg.PublishAddress.IsLoopback():
			n.log.Warn("the host's firewall guards its input, which published ports do not pass: who can reach an address of the host reaches what is published at it; publish at 127.0.0.1, by --publish-address or for each port, what only the host may reach",
				"table", c.Table.Name, "chain", c.Name, "publish-address", n.cfg.PublishAddress)
		}
	}
}

func (n *Networks) isOurs(link string) bool {
	return len(link) == 15 && strings.HasPrefix(link, n.veths)
}
