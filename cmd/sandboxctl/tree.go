package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/archive"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

func (t *tool) ls() *cobra.Command {
	var seq uint64
	cmd := &cobra.Command{Use: "ls USER [PATH]", Short: "List what is in a snapshot", Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
		tree, err := t.open(cmd.Context(), args[0], seq)
		if err != nil {
			return err
		}
		below := ""
		if len(args) > 1 {
			below = strings.Trim(args[1], "/")
		}
		nodes, rows := []snapshot.Node{}, [][]string{}
		for _, n := range tree.Nodes() {
			if below != "" && n.Path != below && !strings.HasPrefix(n.Path, below+"/") {
				continue
			}
			name := fmt.Sprintf("%q", n.Path) // a sandbox may choose any bytes
			name = name[1 : len(name)-1]
			if n.Target != "" {
				name += fmt.Sprintf(" -> %q", n.Target)
			}
			nodes, rows = append(nodes, n), append(rows, []string{n.Mode.String(), size(n.Size), when(n.Time), name})
		}
		return t.show(nodes, "MODE\tSIZE\tTIME\tPATH", rows)
	}}
	at(cmd, &seq)
	return cmd
}

func (t *tool) cat() *cobra.Command {
	var seq uint64
	cmd := &cobra.Command{Use: "cat USER PATH", Short: "Print a file of a snapshot", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		tree, err := t.open(cmd.Context(), args[0], seq)
		if err != nil {
			return err
		}
		return tree.Copy(cmd.Context(), os.Stdout, strings.Trim(args[1], "/"))
	}}
	at(cmd, &seq)
	return cmd
}

func (t *tool) diff() *cobra.Command {
	return &cobra.Command{Use: "diff USER N [M]", Short: "List what changed between two snapshots (M: the newest if left out)", Args: cobra.RangeArgs(2, 3), RunE: func(cmd *cobra.Command, args []string) error {
		var from, to uint64
		if _, err := fmt.Sscanf(strings.Join(args[1:], " ")+" 0", "%d %d", &from, &to); err != nil || from == 0 {
			return errors.New("want the numbers of snapshots, as `sandboxctl snapshots USER` lists them")
		}
		older, err := t.open(cmd.Context(), args[0], from)
		if err != nil {
			return err
		}
		newer, err := t.open(cmd.Context(), args[0], to)
		if err != nil {
			return err
		}
		changes := older.Diff(newer)
		rows := [][]string{}
		for _, c := range changes {
			rows = append(rows, []string{c.What, size(c.Old), size(c.New), fmt.Sprintf("%q", c.Path)})
		}
		return t.show(changes, "CHANGE\tWAS\tIS\tPATH", rows)
	}}
}

func (t *tool) export() *cobra.Command {
	var seq uint64
	var out string
	cmd := &cobra.Command{Use: "export USER", Short: "Write a snapshot as a tar file", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) (err error) {
		tree, err := t.open(cmd.Context(), args[0], seq)
		if err != nil {
			return err
		}
		file, partial := os.Stdout, ""
		if out != "-" {
			partial = out + ".partial" // a file of the name is always whole
			if file, err = os.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
				return err
			}
			defer os.Remove(partial)
		}
		w, err := archive.Compress(out, file)
		if err != nil {
			return err
		}
		progress, end := bar("Writing")
		err = archive.Write(cmd.Context(), w, tree, progress)
		end()
		if err := errors.Join(err, w.Close()); err != nil || out == "-" {
			return err
		}
		if err := errors.Join(file.Sync(), file.Close(), os.Rename(partial, out)); err != nil {
			return err
		}
		return t.say(map[string]any{"file": out}, "Written to %s.", out)
	}}
	at(cmd, &seq)
	cmd.Flags().StringVarP(&out, "output", "o", "-", "file; .tar, .tar.gz or .tar.zst; - for a plain tar on the standard output")
	return cmd
}

func (t *tool) importer() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{Use: "import USER FILE | --prefix PREFIX", Short: "Give a new user the state in a tar file, or in plain objects",
		Long: "Give a new user the state in a tar file (.tar, .tar.gz, .tar.zst), or in the plain objects\nbelow a prefix of the store, as cloudflare/moltworker keeps them: openclaw/ or clawdbot/,\nworkspace/, skills/. These stay as they are.",
		Args: cobra.RangeArgs(1, 2), RunE: func(cmd *cobra.Command, args []string) error {
			u, err := sandbox.ParseUser(args[0])
			if err != nil {
				return err
			}
			if (len(args) == 2) == cmd.Flags().Changed("prefix") {
				return errors.New("want a file, or --prefix")
			}
			tmp, err := os.MkdirTemp("", "sandboxctl-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(tmp)
			dir, err := os.OpenRoot(tmp)
			if err != nil {
				return err
			}
			defer dir.Close()
			o := t.opts
			if len(args) == 2 {
				err = unpack(cmd.Context(), args[1], dir, o)
			} else {
				_, err = archive.FromPrefix(cmd.Context(), t.store, prefix, dir, o.MaxBytes, o.MaxFiles, nil)
			}
			if err != nil {
				return err
			}
			h, err := snapshot.Import(cmd.Context(), t.store, u, dir, o)
			if err != nil {
				return err
			}
			return t.say(h, "%s has %s in %d paths.", u, size(h.Bytes), h.Files)
		}}
	cmd.Flags().StringVar(&prefix, "prefix", "", "where the plain objects lie; \"\" for the store's top")
	return cmd
}

func unpack(ctx context.Context, name string, dir *os.Root, o snapshot.Options) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := archive.Decompress(name, file)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer r.Close()
	if err := archive.Extract(ctx, r, dir, o.MaxBytes, o.MaxFiles); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
