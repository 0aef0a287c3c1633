package devcluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	consul "github.com/hashicorp/consul/api"
)

// agentStart bounds how long one agent may take until it answers.
const agentStart = 60 * time.Second

// Consul is one Consul server, with its UI.
type Consul struct {
	Addr string // host:port of its HTTP API
	args []string
	p    *process
	dir  string
	api  *consul.Client
}

// StartConsul starts a Consul server with its data in dir. Port 0 is a free one.
func StartConsul(ctx context.Context, dir string, port int) (*Consul, error) {
	ports, err := FreePorts(4)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = ports[0]
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	c := &Consul{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dir: dir}
	c.args = []string{"agent", "-server", "-bootstrap-expect=1", "-ui", "-node=dev", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-data-dir=" + filepath.Join(dir, "data"), "-http-port=" + strconv.Itoa(port), "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
		"-server-port=" + strconv.Itoa(ports[1]), "-serf-lan-port=" + strconv.Itoa(ports[2]), "-serf-wan-port=" + strconv.Itoa(ports[3]),
		// Nothing may be asked of the internet, and one server need not wait for others.
		"-hcl=disable_update_check = true", "-hcl=performance { raft_multiplier = 1 }", "-hcl=leave_on_terminate = false"}
	if c.api, err = consul.NewClient(&consul.Config{Address: c.Addr, Scheme: "http"}); err != nil {
		return nil, fmt.Errorf("consul client: %w", err)
	}
	return c, c.Start(ctx)
}

// Start starts a stopped Consul again, on the same ports and data.
func (c *Consul) Start(ctx context.Context) error {
	bin, err := Tool("consul")
	if err != nil {
		return err
	}
	if c.p, err = startProcess("Consul", filepath.Join(c.dir, "consul.log"), agentEnv(mark(c.dir)), bin, c.args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, agentStart)
	defer cancel()
	err = c.p.waitReady(ctx, func(ctx context.Context) error {
		// A write that is accepted proves a leader.
		q := (&consul.WriteOptions{}).WithContext(ctx)
		_, err := c.Client().KV().Put(&consul.KVPair{Key: "openclaw/dev/ready"}, q)
		return err
	})
	if err != nil {
		c.p.kill()
	}
	return err
}

// Stop ends the agent; its data stays.
func (c *Consul) Stop(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return c.p.stop(ctx)
}

// Client is a client of this Consul, whatever the environment says.
func (c *Consul) Client() *consul.Client { return c.api }

// S3 is one S3 server over a folder.
type S3 struct {
	Addr      string // host:port
	AccessKey string
	SecretKey string
	Bucket    string
	Dir       string // the objects of the bucket, as files
	root      string
	p         *process
}

// Endpoint is the server's URL.
func (s *S3) Endpoint() string { return "http://" + s.Addr }

// StartS3 starts an S3 server (versitygw) with one bucket, "openclaw", in dir.
// Port 0 is a free one. The folder is readable by its owner only.
func StartS3(ctx context.Context, dir string, port int, accessKey, secretKey string) (*S3, error) {
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	if port == 0 {
		port = ports[0]
	}
	s := &S3{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), AccessKey: accessKey, SecretKey: secretKey, Bucket: "openclaw", root: dir}
	s.Dir = filepath.Join(dir, "buckets", s.Bucket)
	// In this backend a bucket is a folder.
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return s, s.Start(ctx)
}

// Start starts a stopped server again, on the same port and data.
func (s *S3) Start(ctx context.Context) error {
	bin, err := Tool("versitygw")
	if err != nil {
		return err
	}
	env := agentEnv(mark(s.root), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	s.p, err = startProcess("the S3 server", filepath.Join(s.root, "s3.log"), env, bin,
		"--port", s.Addr, "--keep-alive", "--quiet", "posix", filepath.Join(s.root, "buckets"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, agentStart)
	defer cancel()
	err = s.p.waitReady(ctx, func(ctx context.Context) error { return answers(ctx, s.Endpoint()+"/") })
	if err != nil {
		s.p.kill()
	}
	return err
}

// Stop ends the server; the objects stay.
func (s *S3) Stop(ctx context.Context) error {
	if s == nil {
		return nil
	}
	return s.p.stop(ctx)
}

// answers is nil when an HTTP server answers at url, whatever it says.
func answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
