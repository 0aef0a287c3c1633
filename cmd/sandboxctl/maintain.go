package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// chosen are the user in args, or all.
func (t *tool) chosen(ctx context.Context, args []string, all bool) ([]sandbox.User, error) {
	if all == (len(args) > 0) {
		return nil, errors.New("want a user, or --all")
	}
	if !all {
		u, err := sandbox.ParseUser(args[0])
		return []sandbox.User{u}, err
	}
	list, err := snapshot.Users(ctx, t.store)
	slices.Sort(list)
	return list, err
}

func (t *tool) verify() *cobra.Command {
	var seq uint64
	var all bool
	cmd := &cobra.Command{Use: "verify [USER]", Short: "Read a snapshot and hold every block against its digest", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		list, err := t.chosen(cmd.Context(), args, all)
		if err != nil {
			return err
		}
		type result struct {
			User sandbox.User `json:"user"`
			snapshot.Verified
			Error string `json:"error,omitempty"`
		}
		results, rows := []result{}, [][]string{}
		var failed error
		for _, u := range list {
			res := result{User: u}
			tree, err := t.open(cmd.Context(), string(u), seq)
			if err == nil {
				progress, end := bar(string(u))
				res.Verified, err = tree.Verify(cmd.Context(), progress)
				end()
			}
			verdict := "whole"
			if err != nil {
				res.Error, verdict = err.Error(), err.Error()
				failed = cmp.Or(failed, fmt.Errorf("not all is whole: %w", err))
			}
			results = append(results, res)
			rows = append(rows, []string{string(u), fmt.Sprint(res.Files), size(res.Bytes), size(res.Stored), verdict})
		}
		return errors.Join(t.show(results, "USER\tPATHS\tSIZE\tREAD\t", rows), failed)
	}}
	at(cmd, &seq)
	cmd.Flags().BoolVar(&all, "all", false, "of every user")
	return cmd
}

func (t *tool) gc() *cobra.Command {
	var all bool
	keep := snapshot.DefaultRetention()
	o := snapshot.TidyOptions{Grace: snapshot.DefaultGrace}
	cmd := &cobra.Command{Use: "gc [USER]", Short: "Thin the history, and delete what no snapshot names", Args: cobra.MaximumNArgs(1),
		Long: "Thin the history, and delete what no snapshot names. A segment is deleted when it was\nfound without a name, and still is when the grace period has passed; so the first run\nonly notes it. The driver does the same once a day for users whose sandbox runs.",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := t.chosen(cmd.Context(), args, all)
			if err != nil {
				return err
			}
			if o.Grace < time.Hour {
				return errors.New("--grace: want at least 1h, longer than any save or restore that is under way")
			}
			o.Retention = keep
			type result struct {
				User sandbox.User `json:"user"`
				snapshot.Tidied
			}
			results, rows := []result{}, [][]string{}
			for _, u := range list {
				did, err := snapshot.Tidy(cmd.Context(), t.store, u, o)
				if err != nil {
					return err
				}
				results = append(results, result{u, did})
				rows = append(rows, []string{string(u), fmt.Sprint(did.Versions), fmt.Sprint(did.Segments), size(did.Bytes), fmt.Sprint(did.Condemned)})
			}
			return t.show(results, "USER\tSNAPSHOTS GONE\tSEGMENTS GONE\tFREED\tNOTED", rows)
		}}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "of every user")
	f.BoolVar(&o.DryRun, "dry-run", false, "change nothing, say what would go")
	f.DurationVar(&o.Grace, "grace", o.Grace, "how long nothing may name a segment")
	f.IntVar(&keep.Last, "last", keep.Last, "newest snapshots to keep")
	f.IntVar(&keep.Hourly, "hourly", keep.Hourly, "hours of which the newest stays")
	f.IntVar(&keep.Daily, "daily", keep.Daily, "days of which the newest stays")
	return cmd
}

func (t *tool) du() *cobra.Command {
	return &cobra.Command{Use: "du [USER]", Short: "Say what the users' objects take", Args: cobra.MaximumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		list, err := t.chosen(cmd.Context(), args, len(args) == 0)
		if err != nil {
			return err
		}
		type result struct {
			User sandbox.User `json:"user"`
			snapshot.Usage
		}
		results, rows := []result{}, [][]string{}
		for _, u := range list {
			use, err := snapshot.Use(cmd.Context(), t.store, u)
			if err != nil {
				return err
			}
			results = append(results, result{u, use})
			rows = append(rows, []string{string(u), fmt.Sprint(use.Objects), size(use.Bytes), size(use.Head), size(use.History), size(use.Unnamed)})
		}
		return t.show(results, "USER\tOBJECTS\tSIZE\tNEWEST\tHISTORY\tUNNAMED", rows)
	}}
}

const doctorWriters = 16

func (t *tool) doctor() *cobra.Command {
	return &cobra.Command{Use: "doctor", Short: "Check that the store can be trusted with states", Args: cobra.NoArgs,
		Long: "Check the rights in the bucket, and that conditional writes are honoured, also by\nseveral writers at once: the whole safety of the states rests on them.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, key := cmd.Context(), "doctor/"+rand.Text()
			type finding struct {
				Check string `json:"check"`
				OK    bool   `json:"ok"`
				Error string `json:"error,omitempty"`
			}
			findings, rows := []finding{}, [][]string{}
			var failed error
			for _, c := range []struct {
				name string
				do   func(context.Context, string) error
			}{
				{"write a new object", t.checkNew}, {"one winner among writers of a new object", t.checkOneWinner},
				{"one winner among writers of the same version", t.checkOneChange}, {"read, read a part, list", t.checkRead}, {"delete", t.checkDelete},
			} {
				f := finding{Check: c.name, OK: true}
				verdict := "ok"
				if err := c.do(ctx, key); err != nil {
					f.OK, f.Error, verdict = false, err.Error(), err.Error()
					failed = cmp.Or(failed, fmt.Errorf("%s: %w", c.name, err))
				}
				findings, rows = append(findings, f), append(rows, []string{c.name, verdict})
			}
			return errors.Join(t.show(findings, "CHECK\t", rows), failed)
		}}
}

func (t *tool) put(ctx context.Context, key, text string, cond objstore.Condition) (string, error) {
	return t.store.Put(ctx, key, bytes.NewReader([]byte(text)), cond)
}

func (t *tool) checkNew(ctx context.Context, key string) error {
	if _, err := t.put(ctx, key, "1", objstore.IfAbsent()); err != nil {
		return err
	}
	if _, err := t.put(ctx, key, "2", objstore.IfAbsent()); !errors.Is(err, objstore.ErrPrecondition) {
		return fmt.Errorf("a second write with If-None-Match was not refused (%v): do not use this store", err)
	}
	return nil
}

// race lets writers loose at once and wants exactly one to win.
func (t *tool) race(ctx context.Context, key string, cond objstore.Condition) error {
	var wg sync.WaitGroup
	errs := make([]error, doctorWriters)
	for i := range errs {
		wg.Go(func() { _, errs[i] = t.put(ctx, key, fmt.Sprint(i), cond) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, objstore.ErrPrecondition):
			return err
		}
	}
	if won != 1 {
		return fmt.Errorf("%d of %d writers won: do not use this store", won, doctorWriters)
	}
	return nil
}

func (t *tool) checkOneWinner(ctx context.Context, key string) error {
	defer t.store.Delete(context.WithoutCancel(ctx), key+"-race")
	return t.race(ctx, key+"-race", objstore.IfAbsent())
}

func (t *tool) checkOneChange(ctx context.Context, key string) error {
	etag, err := t.put(ctx, key, "base", objstore.Condition{})
	if err != nil {
		return err
	}
	return t.race(ctx, key, objstore.IfMatch(etag))
}

func (t *tool) checkRead(ctx context.Context, key string) error {
	body, _, err := t.store.Get(ctx, key)
	if err != nil {
		return err
	}
	body.Close()
	if body, err = t.store.GetRange(ctx, key, 0, 1); err != nil {
		return err
	}
	body.Close()
	for info, err := range t.store.List(ctx, "doctor/") {
		if err != nil {
			return err
		}
		if info.Key == key {
			return nil
		}
	}
	return errors.New("a list does not have an object that was just written")
}

func (t *tool) checkDelete(ctx context.Context, key string) error {
	if err := t.store.Delete(ctx, key); err != nil {
		return err
	}
	if _, _, err := t.store.Get(ctx, key); !errors.Is(err, objstore.ErrNotFound) {
		return fmt.Errorf("after a delete the object is still there (%v)", err)
	}
	return nil
}
