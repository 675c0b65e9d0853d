package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
)

// dialStdioCommand is the far end of an ssh:// address: our standard streams are a
// connection to the engine.
func dialStdioCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "dial-stdio", Short: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
		Args: noArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := c.endpoint()
			if err != nil {
				return err
			}
			conn, err := e.Dial(cmd.Context())
			if err != nil {
				return err
			}
			defer conn.Close()
			go func() {
				io.Copy(conn, c.std.In)
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					half.CloseWrite()
				}
			}()
			if _, err := io.Copy(c.std.Out, conn); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		},
	}
}
