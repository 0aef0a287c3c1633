// Command sandboxctl is the operator's tool for the users' stored states: what
// there is, what it was, to have it back, to move it, to check it. It looks after
// API tokens and the policies of idle sandboxes, too, and gives out the secrets of
// webhooks.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"openclaw-sandbox/internal/apitoken"
	"openclaw-sandbox/internal/objstore"
	"openclaw-sandbox/internal/sandbox"
	"openclaw-sandbox/internal/snapshot"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sandboxctl:", explain(err))
		os.Exit(1)
	}
}

// tool is what the commands share.
type tool struct {
	config objstore.Config
	json   bool
	keys   map[string]string // files of master keys
	active string
	opts   snapshot.Options
	store  objstore.Store
}

func command() *cobra.Command {
	t := &tool{}
	root := &cobra.Command{
		Use:   "sandboxctl",
		Short: "Look after the users' stored states",
		Long: `Look after the users' stored states.

The store is named by flags or by the environment: SANDBOX_STORE, SANDBOX_ENDPOINT,
SANDBOX_REGION, SANDBOX_PATH_STYLE=1, and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
for the credentials, or whatever else the AWS SDK finds. Only the commands token
and policy need Consul, and these no store.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cmd.Name() == "help" || cmd.Name() == "completion" || cmd.Parent().Name() == "completion" {
				return nil
			}
			if t.config.URL == "" {
				return errors.New("no store: set --store or SANDBOX_STORE, like s3://bucket/prefix")
			}
			if t.opts, err = t.readKeys(); err != nil {
				return err
			}
			t.store, err = objstore.Open(cmd.Context(), t.config)
			return err
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&t.config.URL, "store", os.Getenv("SANDBOX_STORE"), "s3://bucket/prefix or file:///folder, as in the driver's config")
	f.StringVar(&t.config.Endpoint, "endpoint", os.Getenv("SANDBOX_ENDPOINT"), "the S3 server; empty for AWS")
	f.StringVar(&t.config.Region, "region", os.Getenv("SANDBOX_REGION"), "the S3 region; \"auto\" if empty")
	f.BoolVar(&t.config.PathStyle, "path-style", os.Getenv("SANDBOX_PATH_STYLE") == "1", "put the bucket in the path")
	f.StringToStringVar(&t.keys, "key", nil, "NAME=FILE of a master key of encrypted states; may be repeated")
	f.StringVar(&t.active, "active-key", "", "the master key for what is written, if there are several")
	f.BoolVar(&t.json, "json", false, "print JSON, for scripts")
	root.AddCommand(t.users(), t.snapshots(), t.restore(), t.fork(), t.pin(), t.unpin(), t.ls(), t.cat(), t.diff(), t.export(), t.importer(), t.verify(), t.gc(), t.du(), t.doctor(), t.token(), t.webhook(), t.policy())
	return root
}

func (t *tool) readKeys() (snapshot.Options, error) {
	o := snapshot.DefaultOptions()
	var err error
	o.Keys, err = snapshot.ReadKeys(t.keys, t.active)
	return o, err
}

// explain makes an error one sentence with the next step.
func explain(err error) string {
	for known, next := range map[error]string{
		snapshot.ErrInUse:       "stop the sandbox first, or add --force: it then ends, and what it did since its last save becomes a branch",
		snapshot.ErrKey:         "name the file of the master key with --key NAME=FILE",
		snapshot.ErrExists:      "choose a user without state",
		snapshot.ErrNoVersion:   "`sandboxctl snapshots USER` lists what is kept",
		snapshot.ErrNewer:       "use the sandboxctl of the newest driver",
		snapshot.ErrCorrupt:     "`sandboxctl snapshots USER` lists older snapshots, which may be whole",
		snapshot.ErrFenced:      "a sandbox of this user was started meanwhile; look and try again",
		objstore.ErrNotFound:    "`sandboxctl users` lists who has state",
		objstore.ErrDenied:      "check the credentials and the bucket's name",
		objstore.ErrUnreachable: "check --endpoint and the network",
		errConsul:               "check CONSUL_HTTP_ADDR, and that CONSUL_HTTP_TOKEN has key:write on JOB/policy/",
		apitoken.ErrUnknown:     "`sandboxctl token list` lists them",
		apitoken.ErrConsul:      "check CONSUL_HTTP_ADDR, and that CONSUL_HTTP_TOKEN has key:write on the prefix",
	} {
		if errors.Is(err, known) {
			return err.Error() + "; " + next
		}
	}
	return err.Error()
}

// at adds the flag that names a snapshot.
func at(cmd *cobra.Command, seq *uint64) {
	cmd.Flags().Uint64Var(seq, "at", 0, "the snapshot's number; the newest if 0")
}

// open is the tree of a user's snapshot.
func (t *tool) open(ctx context.Context, arg string, seq uint64) (*snapshot.Tree, error) {
	u, err := sandbox.ParseUser(arg)
	if err != nil {
		return nil, err
	}
	h, err := snapshot.ReadVersion(ctx, t.store, u, seq)
	if err != nil {
		return nil, err
	}
	return snapshot.OpenTree(ctx, t.store, h, t.opts)
}
