package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

// ours is the snapshot store. Its processes are this program, started again:
//
//	child seed URL USER DIR      claim, restore nothing, save all of DIR
//	child restore URL USER DIR   claim, restore into DIR
//	child save URL USER DIR      claim, restore, then save DIR at every line of
//	                             stdin, a URL, as a driver does that has the index
type ours struct {
	b      *bench
	savers map[string]*saver
}

func (o *ours) seed(ctx context.Context, d *dataset, url string) error {
	u, err := o.child(ctx, "seed", url, user(d), d.dir)
	o.b.seeded[d.name] = u
	return err
}

func (o *ours) restore(ctx context.Context, d *dataset, url, into string) (usage, error) {
	settle()
	return o.child(ctx, "restore", url, user(d), into)
}

// child runs this program again, which prints what it used itself.
func (o *ours) child(ctx context.Context, args ...string) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	u, out, err := output(ctx, o.b.env(args[1]), o.b.dir, append([]string{self, "child"}, args...)...)
	if err != nil {
		return usage{}, err
	}
	var inside usage
	err = json.Unmarshal(out, &inside)
	u.RSS = inside.RSS
	return u, err
}

func (o *ours) save(ctx context.Context, d *dataset, url string) (usage, error) {
	s := o.savers[d.name]
	if s == nil {
		var err error
		if s, err = o.start(ctx, d, url); err != nil {
			return usage{}, err
		}
		o.savers[d.name] = s
	}
	return s.save(url)
}

func (o *ours) close() {
	for _, s := range o.savers {
		s.in.Close()
		s.cmd.Wait() // it ends with its input
	}
}

// saver is a process that saves, again and again.
type saver struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err bytes.Buffer
}

func (o *ours) start(ctx context.Context, d *dataset, url string) (*saver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &saver{cmd: exec.CommandContext(ctx, self, "child", "save", url, user(d), d.dir)}
	s.cmd.Env, s.cmd.Dir, s.cmd.Stderr = o.b.env(url), o.b.dir, &s.err
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	s.out = bufio.NewScanner(out)
	return s, s.cmd.Start()
}

func (s *saver) save(url string) (usage, error) {
	_, err := fmt.Fprintln(s.in, url)
	if err != nil || !s.out.Scan() {
		err = errors.Join(err, s.out.Err(), s.cmd.Wait()) // with it, all of its stderr is there
		return usage{}, fmt.Errorf("the saver ended: %w: %s", err, s.err.String())
	}
	var u usage
	return u, json.Unmarshal(s.out.Bytes(), &u)
}

func user(d *dataset) string { return "bench-" + strings.ToLower(d.name) }

// child is the program that was started again.
func child(ctx context.Context, verb, url, user, dir string) error {
	st := &switched{}
	if err := st.to(ctx, url); err != nil {
		return err
	}
	run, err := snapshot.Claim(ctx, st, sandbox.User(user), snapshot.Writer{Alloc: "bench", Node: "bench"}, snapshot.DefaultOptions())
	if err != nil {
		return err
	}
	if verb == "restore" {
		if err := restoreInto(ctx, run, dir); err != nil {
			return err
		}
		return printUsage()
	}
	scratch, err := os.MkdirTemp(".", "child-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	was, staging := filepath.Join(scratch, "was"), filepath.Join(scratch, "staging")
	if err := os.Mkdir(was, 0o700); err != nil {
		return err
	}
	if err := restoreInto(ctx, run, was); err != nil {
		return err
	}
	if verb == "seed" {
		if _, err := save(ctx, run, dir, staging, true); err != nil {
			return err
		}
		return printUsage()
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := st.to(ctx, lines.Text()); err != nil {
			return err
		}
		u, err := save(ctx, run, dir, staging, false)
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(u)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func printUsage() error {
	u, err := own()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(u)
}

func restoreInto(ctx context.Context, run *snapshot.Run, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return run.Restore(ctx, root, nil)
}

// save does what the driver does from "save now" until the state is committed.
func save(ctx context.Context, run *snapshot.Run, dir, staging string, final bool) (usage, error) {
	before, err := own()
	if err != nil {
		return usage{}, err
	}
	begin := time.Now()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return usage{}, err
	}
	defer root.Close()
	c, err := run.Capture(ctx, root, staging)
	if err != nil {
		return usage{}, err
	}
	if _, err := run.Commit(ctx, c, final); err != nil {
		return usage{}, err
	}
	wall := time.Since(begin)
	after, err := own()
	return usage{Wall: wall, CPU: after.CPU - before.CPU, RSS: after.RSS}, err
}

// switched is a store that is reached by one way or another.
type switched struct{ objstore.Store }

func (s *switched) to(ctx context.Context, url string) (err error) {
	s.Store, err = objstore.Open(ctx, objstore.Config{URL: "s3://" + bucket, Endpoint: url, PathStyle: true, AccessKeyID: accessKey, SecretAccessKey: secretKey, Region: "us-east-1"})
	return err
}
