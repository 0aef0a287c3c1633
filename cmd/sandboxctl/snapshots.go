package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

func (t *tool) users() *cobra.Command {
	return &cobra.Command{Use: "users", Short: "List who has state", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		list, err := snapshot.Users(cmd.Context(), t.store)
		if err != nil {
			return err
		}
		slices.Sort(list)
		type row struct {
			*snapshot.Head
			Segments int    `json:"segments"` // how many; not which
			Error    string `json:"error,omitempty"`
		}
		all, rows := []row{}, [][]string{}
		for _, u := range list {
			h, _, err := snapshot.ReadHead(cmd.Context(), t.store, u)
			if err != nil { // one bad head must not hide the others
				all = append(all, row{Head: &snapshot.Head{User: u}, Error: err.Error()})
				rows = append(rows, []string{string(u), "?", "", "", "", err.Error()})
				continue
			}
			all = append(all, row{Head: h, Segments: len(h.Segments)})
			rows = append(rows, []string{string(u), string(h.State), fmt.Sprint(h.Seq), when(h.Saved), size(h.Bytes), h.Writer.Node})
		}
		return t.show(all, "USER\tSTATE\tSNAPSHOT\tSAVED\tSIZE\tBY", rows)
	}}
}

func (t *tool) snapshots() *cobra.Command {
	return &cobra.Command{Use: "snapshots USER", Short: "List the snapshots that can be had back", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		u, err := sandbox.ParseUser(args[0])
		if err != nil {
			return err
		}
		list, err := snapshot.Versions(cmd.Context(), t.store, u)
		if err != nil {
			return err
		}
		rows := [][]string{}
		for _, v := range list {
			note := ""
			switch {
			case v.Newest:
				note = "newest"
			case v.Pinned:
				note = strings.TrimSpace("pinned " + v.Comment)
			}
			rows = append(rows, []string{fmt.Sprint(v.Seq), when(v.Saved), note})
		}
		branches, err := snapshot.Branches(cmd.Context(), t.store, u)
		if err != nil {
			return err
		}
		for _, b := range branches {
			rows = append(rows, []string{b, "", "branch: left behind by a run that another had taken over from"})
		}
		return t.show(map[string]any{"snapshots": list, "branches": branches}, "SNAPSHOT\tSAVED\t", rows)
	}}
}

func (t *tool) restore() *cobra.Command {
	var seq uint64
	var branch string
	var force bool
	cmd := &cobra.Command{Use: "restore USER --at N | --branch NAME", Short: "Make an older snapshot the newest again", Args: cobra.ExactArgs(1),
		Long: "Make an older snapshot the newest again. The user's next start has it. What was the\nnewest stays in the history.",
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := sandbox.ParseUser(args[0])
			if err != nil {
				return err
			}
			var to *snapshot.Head
			if branch != "" {
				to, err = snapshot.ReadBranch(cmd.Context(), t.store, u, branch)
			} else {
				to, err = snapshot.ReadVersion(cmd.Context(), t.store, u, seq)
			}
			if err != nil {
				return err
			}
			h, err := snapshot.Rewind(cmd.Context(), t.store, u, to, force)
			if err != nil {
				return err
			}
			return t.say(h, "The next start of %s has what was saved at %s, as snapshot %d.", u, when(to.Saved), h.Seq)
		}}
	at(cmd, &seq)
	cmd.Flags().StringVar(&branch, "branch", "", "a branch in place of a snapshot, as sandboxctl snapshots lists it")
	cmd.MarkFlagsOneRequired("at", "branch")
	cmd.MarkFlagsMutuallyExclusive("at", "branch")
	cmd.Flags().BoolVar(&force, "force", false, "also under a running sandbox, which then ends; what it did since its last save becomes a branch")
	return cmd
}

func (t *tool) fork() *cobra.Command {
	var seq uint64
	cmd := &cobra.Command{Use: "fork USER NEW", Short: "Give a new user a copy of a snapshot", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		from, err := sandbox.ParseUser(args[0])
		if err != nil {
			return err
		}
		to, err := sandbox.ParseUser(args[1])
		if err != nil {
			return err
		}
		progress, end := bar("Copying")
		h, err := snapshot.Fork(cmd.Context(), t.store, from, seq, to, t.opts.Keys, progress)
		end()
		if err != nil {
			return err
		}
		return t.say(h, "%s has the state of %s: %s in %d paths.", to, from, size(h.Bytes), h.Files)
	}}
	at(cmd, &seq)
	return cmd
}

func (t *tool) pin() *cobra.Command {
	var comment string
	cmd := &cobra.Command{Use: "pin USER N", Short: "Keep a snapshot until it is unpinned", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		return t.onVersion(args, func(u sandbox.User, seq uint64) error {
			if err := snapshot.Pin(cmd.Context(), t.store, u, seq, comment); err != nil {
				return err
			}
			return t.say(map[string]any{"user": u, "pinned": seq}, "Snapshot %d of %s is pinned.", seq, u)
		})
	}}
	cmd.Flags().StringVarP(&comment, "message", "m", "", "why")
	return cmd
}

func (t *tool) unpin() *cobra.Command {
	return &cobra.Command{Use: "unpin USER N", Short: "Leave a snapshot to the retention again", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		return t.onVersion(args, func(u sandbox.User, seq uint64) error {
			if err := snapshot.Unpin(cmd.Context(), t.store, u, seq); err != nil {
				return err
			}
			return t.say(map[string]any{"user": u, "unpinned": seq}, "Snapshot %d of %s is not pinned any more.", seq, u)
		})
	}}
}

func (t *tool) onVersion(args []string, do func(u sandbox.User, seq uint64) error) error {
	u, err := sandbox.ParseUser(args[0])
	if err != nil {
		return err
	}
	var seq uint64
	if _, err := fmt.Sscanf(args[1], "%d", &seq); err != nil || seq == 0 {
		return fmt.Errorf("snapshot %q: want its number, as `sandboxctl snapshots %s` lists it", args[1], u)
	}
	return do(u, seq)
}
