package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"

	"openclaw-sandbox/internal/catalog"
)

const (
	// nodes is over how many nodes the gateways are spread.
	nodes = 50
	// writers is how many register at a time at first.
	writers = 16
)

// writer registers all gateways, says so on stdout, and once a line comes on stdin
// changes one after the other at the rate, each with the time as its generation.
func writer(ctx context.Context, where string, o options) error {
	addr, n, _ := strings.Cut(where, ",")
	conf := catalog.DefaultConfig()
	var err error
	if conf.Shards, err = strconv.Atoi(n); err != nil {
		return fmt.Errorf("-write: %w", err)
	}
	client, err := consul.NewClient(&consul.Config{Address: addr})
	if err != nil {
		return err
	}
	if err := registerAll(ctx, client, conf, o); err != nil {
		return err
	}
	fmt.Println("registered")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil // nobody wants changes
	}
	tick := time.NewTicker(time.Second / time.Duration(o.rate))
	defer tick.Stop()
	for n := range int(o.duration.Seconds()) * o.rate {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := register(ctx, client, conf, n%o.instances, strconv.FormatInt(time.Now().UnixNano(), 10)); err != nil {
			return err
		}
	}
	return nil
}

func registerAll(ctx context.Context, client *consul.Client, conf catalog.Config, o options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := w; n < o.instances && ctx.Err() == nil; n += writers {
				if err := register(ctx, client, conf, n, "g-"+strconv.Itoa(n)); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// register writes one gateway as Nomad's registration of the job would look.
func register(ctx context.Context, client *consul.Client, conf catalog.Config, n int, generation string) error {
	u := user(n)
	node := "node-" + strconv.Itoa(n%nodes)
	id := "_nomad-task-00000000-0000-0000-0000-" + fmt.Sprintf("%012d", n) + "-gateway-openclaw-gateway-gateway"
	name := conf.ServiceOf(u)
	_, err := client.Catalog().Register(&consul.CatalogRegistration{Node: node, Address: "10.0.0." + strconv.Itoa(1+n%nodes),
		Service: &consul.AgentService{ID: id, Service: name, Port: 20000 + n%10000, Address: "10.0.0." + strconv.Itoa(1+n%nodes), Tags: []string{"openclaw"},
			Meta: map[string]string{"external-source": "nomad", "user": string(u), "generation": generation, "node": node, "job": "openclaw/dispatch-" + string(u) + "-1795467400-7c622ea9"}},
		Check: &consul.AgentCheck{Node: node, CheckID: "_nomad-check-" + strconv.Itoa(n), Name: "ready", Status: consul.HealthPassing, ServiceID: id, ServiceName: name, Output: `HTTP GET /startupz: 200 OK Output: {"ok":true,"status":"started"}`},
	}, (&consul.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("register %s: %w", u, err)
	}
	return nil
}
