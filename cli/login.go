package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/config"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

type loginOptions struct {
	user, password string
	fromStdin      bool
}

func loginCommand(c *cli) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Authenticate to a registry",
		Long:  "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("password") && o.fromStdin {
				return errors.New("conflicting options: cannot specify both --password and --password-stdin")
			}
			if cmd.Flags().Changed("password") {
				if o.password == "" {
					return errors.New("password is empty")
				}
				fmt.Fprintln(c.std.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
			}
			return c.login(cmd.Context(), server(args), &o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	f.BoolVar(&o.fromStdin, "password-stdin", false, "Take the Password or Personal Access Token\n(PAT) from stdin")
	f.StringVarP(&o.user, "username", "u", "", "Username")
	return cmd
}

// server is the registry under whose name a credential is kept.
func server(args []string) string {
	if len(args) == 0 || args[0] == "docker.io" || args[0] == "index.docker.io" {
		return config.IndexServer
	}
	host := args[0]
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	return strings.TrimSuffix(host, "/")
}

func (c *cli) login(ctx context.Context, server string, o *loginOptions) error {
	if o.fromStdin {
		if o.user == "" {
			return errors.New("the --password-stdin option requires --username to be set")
		}
		raw, err := io.ReadAll(c.std.In)
		if err != nil {
			return err
		}
		o.password = strings.TrimRight(string(raw), "\r\n")
		if o.password == "" {
			return errors.New("password is empty")
		}
	}
	cred := registry.AuthConfig{ServerAddress: server, Username: o.user, Password: o.password}
	if o.user == "" && o.password == "" {
		kept, err := c.file().Credential(server)
		if err != nil {
			return err
		}
		if kept.Username != "" || kept.IdentityToken != "" {
			fmt.Fprintf(c.std.Err, "Authenticating with existing credentials... [Username: %s]\n", kept.Username)
			cred = kept
		}
	}
	if cred.Password == "" && cred.IdentityToken == "" {
		if err := c.askCredential(&cred); err != nil {
			return err
		}
	}
	return c.authenticate(ctx, cred)
}

// askCredential asks the user at the terminal for what is missing.
func (c *cli) askCredential(cred *registry.AuthConfig) error {
	in, ok := terminal.File(c.std.In)
	if !ok {
		return errors.New("Error: Cannot perform an interactive login from a non TTY device")
	}
	if cred.Username == "" {
		fmt.Fprint(c.std.Out, "Username: ")
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			return err
		}
		if cred.Username = strings.TrimSpace(line); cred.Username == "" {
			return errors.New("Error: Non-null Username Required")
		}
	}
	fmt.Fprint(c.std.Out, "Password: ")
	password, err := terminal.ReadPassword(in)
	fmt.Fprintln(c.std.Out)
	if err != nil {
		return err
	}
	if cred.Password = password; password == "" {
		return errors.New("Error: Password Required")
	}
	return nil
}

// authenticate lets the engine try the credential, and keeps what works.
func (c *cli) authenticate(ctx context.Context, cred registry.AuthConfig) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	var answer registry.AuthResponse
	if err := cl.Post(ctx, "/auth", nil, cred, &answer); err != nil {
		return err
	}
	if answer.IdentityToken != "" {
		cred.Password, cred.IdentityToken = "", answer.IdentityToken
	}
	f := c.file()
	if f.Plain(cred.ServerAddress) {
		fmt.Fprintf(c.std.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning.\n\n", filepath.Join(f.Dir, "config.json"))
	}
	if err := f.Store(cred); err != nil {
		return fmt.Errorf("Error saving credentials: %w", err)
	}
	fmt.Fprintln(c.std.Out, answer.Status)
	return nil
}

func logoutCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [SERVER]",
		Short: "Log out from a registry",
		Long:  "Log out from a registry.\nIf no server is specified, the default is Docker Hub.",
		Args:  maxArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			s := server(args)
			fmt.Fprintf(c.std.Out, "Removing login credentials for %s\n", s)
			if err := c.file().Erase(s); err != nil {
				return fmt.Errorf("could not erase credentials: %w", err)
			}
			return nil
		},
	}
}
