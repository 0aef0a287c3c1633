package launch

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"openclaw-sandbox/internal/catalog"
	"openclaw-sandbox/internal/sandbox"
)

// early is the gateway of an allocation whose task runs: the driver lets a task
// run only once its gateway serves, and Nomad tells of that before Consul does. It
// is false when it does not run yet, or when its address is for Consul alone to say.
func (l *Launcher) early(ctx context.Context, u sandbox.User, a *nomad.Allocation) (catalog.Instance, bool) {
	if a.ClientStatus != nomad.AllocClientStatusRunning || a.DesiredStatus != nomad.AllocDesiredStatusRun || a.AllocatedResources == nil {
		return catalog.Instance{}, false
	}
	s := l.service(ctx)
	if s == nil {
		return catalog.Instance{}, false
	}
	if t := a.TaskStates[s.TaskName]; t == nil || t.State != taskRunning {
		return catalog.Instance{}, false
	}
	addr := address(s, a)
	if addr == "" {
		return catalog.Instance{}, false
	}
	return catalog.Instance{User: u, Generation: a.ID, Addr: addr, Node: a.NodeName, Job: a.JobID, Ports: ports(s, a)}, true
}

// taskRunning is the state of a task that the driver has started.
const taskRunning = "running"

// address is where a service of the allocation will be registered; "" if that is
// not sure.
func address(s *nomad.Service, a *nomad.Allocation) string {
	at := slices.IndexFunc(a.AllocatedResources.Shared.Ports, func(p nomad.PortMapping) bool { return p.Label == s.PortLabel })
	if at < 0 || s.Address != "" {
		return ""
	}
	port := a.AllocatedResources.Shared.Ports[at]
	switch {
	case s.AddressMode == "host":
		return net.JoinHostPort(port.HostIP, strconv.Itoa(port.Value))
	case s.AddressMode != "driver" && s.AddressMode != "alloc" || a.NetworkStatus == nil || a.NetworkStatus.Address == "":
		return ""
	case port.To > 0:
		return net.JoinHostPort(a.NetworkStatus.Address, strconv.Itoa(port.To))
	}
	return net.JoinHostPort(a.NetworkStatus.Address, strconv.Itoa(port.Value))
}

// ports are the allocation's other ports, as its service's meta has them.
func ports(s *nomad.Service, a *nomad.Allocation) string {
	var open []string
	for _, p := range a.AllocatedResources.Shared.Ports {
		if p.Label == s.PortLabel || p.To <= 0 {
			continue
		}
		outside := p.To
		if s.AddressMode == "host" {
			outside = p.Value
		}
		open = append(open, strconv.Itoa(p.To)+"="+strconv.Itoa(outside))
	}
	return strings.Join(open, ",")
}

const (
	// serviceFor is how long the job's service is believed to be as it was read.
	serviceFor = time.Minute
	// serviceRetry is the same after it could not be read: meanwhile Consul is
	// waited for, and nobody waits for Nomad to read it.
	serviceRetry = 5 * time.Second
)

// described is the job's service for routers.
type described struct {
	mu      sync.Mutex // held while it is read, so that one reads for all
	service *nomad.Service
	until   time.Time // when it is read again
}

// service is how the job registers its gateway: a task's service with the meta
// that routers need. Nil if it has none, or Nomad does not say.
func (l *Launcher) service(ctx context.Context) *nomad.Service {
	d := &l.described
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Now().Before(d.until) {
		return d.service
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	job, _, err := l.nomad.Jobs().Info(l.config.Job, (&nomad.QueryOptions{Namespace: l.config.Namespace}).WithContext(ctx))
	if err != nil {
		l.log.Debug("read the job", "job", l.config.Job, "error", err)
		d.until = time.Now().Add(serviceRetry)
		return d.service
	}
	d.service, d.until = serviceOf(job), time.Now().Add(serviceFor)
	return d.service
}

func serviceOf(job *nomad.Job) *nomad.Service {
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			for _, s := range t.Services {
				keys := slices.Collect(maps.Keys(s.Meta))
				if slices.Contains(keys, "user") && slices.Contains(keys, "generation") {
					found := *s
					found.TaskName = t.Name
					return &found
				}
			}
		}
	}
	return nil
}
