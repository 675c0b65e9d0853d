package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	apicommon "github.com/moby/moby/api/types/common"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/name"
	"github.com/gantryd/gantry/cli/internal/progress"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

func saveCommand(c *cli) *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"names": args}
			if platform != "" {
				raw, err := platformJSON(platform)
				if err != nil {
					return err
				}
				q.Set("platform", raw)
			}
			return c.download(cmd, "/images/get", q, output, "save image")
		},
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	f.StringVar(&platform, "platform", "", "Save only the given platform variant. Formatted\nas \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	aliases(cmd, "image save", "save")
	return cmd
}

func exportCommand(c *cli) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] CONTAINER",
		Short: "Export a container's filesystem as a tar archive",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.download(cmd, "/containers/"+url.PathEscape(args[0])+"/export", nil, output, "export container")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	aliases(cmd, "container export", "export")
	return cmd
}

// download writes an answer's body to a file, whole or not at all, or to standard output.
func (c *cli) download(cmd *cobra.Command, path string, q url.Values, output, what string) (err error) {
	if _, ok := terminal.File(c.std.Out); ok && output == "" {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	resp, err := cl.Do(cmd.Context(), client.Request{Method: http.MethodGet, Path: path, Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if output == "" {
		_, err = io.Copy(c.std.Out, resp.Body)
		return err
	}
	if err := writeWhole(output, resp.Body); err != nil {
		return fmt.Errorf("failed to %s: %w", what, err)
	}
	return nil
}

// writeWhole fills a temporary file beside name and renames it. What is no plain
// file (a device, a pipe) is written as it is.
func writeWhole(name string, r io.Reader) (err error) {
	if info, serr := os.Stat(name); serr == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return fmt.Errorf("invalid output path: %q must be a file, not a directory", name)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, r)
		return err
	}
	if _, err := os.Stat(filepath.Dir(name)); err != nil {
		return fmt.Errorf("invalid output path: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("invalid output path: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func loadCommand(c *cli) *cobra.Command {
	var input, platform string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := c.std.In
			if input != "" {
				f, err := os.Open(input)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			} else if _, ok := terminal.File(in); ok {
				return errors.New("requested load from stdin, but stdin is empty")
			}
			q := url.Values{"quiet": {"1"}}
			if _, ok := terminal.File(c.std.Out); ok && !quiet {
				q.Set("quiet", "0")
			}
			if platform != "" {
				raw, err := platformJSON(platform)
				if err != nil {
					return err
				}
				q.Set("platform", raw)
			}
			return c.upload(cmd, "/images/load", q, in)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	f.StringVar(&platform, "platform", "", "Load only the given platform variant. Formatted\nas \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	aliases(cmd, "image load", "load")
	return cmd
}

// upload sends a stream and shows what the engine says while it takes it.
func (c *cli) upload(cmd *cobra.Command, path string, q url.Values, in io.Reader) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	resp, err := cl.Do(cmd.Context(), client.Request{Method: http.MethodPost, Path: path, Query: q, Body: in})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return progress.Show(c.std.Out, resp.Body, nil)
	}
	_, err = io.Copy(c.std.Out, resp.Body)
	return err
}

func importCommand(c *cli) *cobra.Command {
	var changes []string
	var message, platform string
	cmd := &cobra.Command{
		Use:               "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short:             "Import the contents from a tarball to create a filesystem image",
		ValidArgsFunction: files,
		Args:              importArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"fromSrc": {"-"}, "changes": changes}
			setNonEmpty(q, "message", message)
			setNonEmpty(q, "platform", platform)
			if len(args) == 2 {
				n, err := name.Parse(args[1])
				if err != nil {
					return err
				}
				n = n.Tagged()
				q.Set("repo", n.FamiliarRepository())
				setNonEmpty(q, "tag", n.Tag)
			}
			in := c.std.In
			switch src := args[0]; {
			case src == "-":
			case strings.HasPrefix(src, "http://"), strings.HasPrefix(src, "https://"):
				q.Set("fromSrc", src)
				in = nil
			default:
				f, err := os.Open(src)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return c.upload(cmd, "/images/create", q, in)
		},
	}
	f := cmd.Flags()
	f.VarP(newList(&changes, nil), "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&message, "message", "m", "", "Set commit message for imported image")
	f.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	aliases(cmd, "image import", "import")
	return cmd
}

func setNonEmpty(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func commitCommand(c *cli) *cobra.Command {
	var changes []string
	var author, message string
	var pause bool
	cmd := &cobra.Command{
		Use:   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short: "Create a new image from a container's changes",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"container": {args[0]}, "changes": changes}
			setNonEmpty(q, "author", author)
			setNonEmpty(q, "comment", message)
			if !pause {
				q.Set("pause", "0")
			}
			if len(args) == 2 {
				n, err := name.Parse(args[1])
				if err != nil {
					return err
				}
				if n.Digest != "" {
					return errors.New("refusing to create a tag with a digest reference")
				}
				n = n.Tagged()
				q.Set("repo", n.Repository())
				q.Set("tag", n.Tag)
			}
			cl, err := c.engine()
			if err != nil {
				return err
			}
			var made apicommon.IDResponse
			if err := cl.Post(cmd.Context(), "/commit", q, nil, &made); err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, made.ID)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&author, "author", "a", "", "Author (e.g., \"John Hannibal Smith\n<hannibal@a-team.com>\")")
	f.VarP(newList(&changes, nil), "change", "c", "Apply Dockerfile instruction to the created image")
	f.StringVarP(&message, "message", "m", "", "Commit message")
	f.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	aliases(cmd, "container commit", "commit")
	return cmd
}

func importArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return minArgs(1)(cmd, args)
	}
	return rangeArgs(1, 2)(cmd, args)
}
