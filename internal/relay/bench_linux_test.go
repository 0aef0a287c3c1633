package relay

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The benchmarks run a relay in a process of its own, so that its CPU and memory
// can be told from those of its clients and gateway:
//
//	go test ./internal/relay -run '^$' -bench . -benchtime 3s
//
// cpu-us/op is the relay's user and system time for one message to the gateway and
// back; B/pair is the growth of its resident memory.

// benchUpstream and benchWay make this program such a relay.
const (
	benchUpstream = "RELAY_BENCH_UPSTREAM"
	benchWay      = "RELAY_BENCH_WAY"
)

func TestMain(m *testing.M) {
	if to := os.Getenv(benchUpstream); to != "" {
		benchServe(to, ways[os.Getenv(benchWay)])
		return
	}
	os.Exit(m.Run())
}

// benchServe relays until its standard input ends. It says its address, and then
// "ready" for each line that it reads once its garbage is gone.
func benchServe(to string, o Options) {
	o.Loops = 0
	r := New(o, slog.New(slog.DiscardHandler))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", to)
			if err != nil {
				panic(err)
			}
			r.Start(Pair{Client: client, Upstream: upstream})
		}
	}()
	fmt.Println(l.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		want, _ := strconv.Atoi(lines.Text())
		for r.Len() < want {
			time.Sleep(time.Millisecond)
		}
		debug.FreeOSMemory()
		fmt.Println("ready")
	}
	r.Close()
}

// relayProcess is a relay in another process.
type relayProcess struct {
	addr string
	pid  int
	in   io.Writer
	out  *bufio.Reader
}

func startRelay(b *testing.B, way, upstream string) *relayProcess {
	b.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), benchUpstream+"="+upstream, benchWay+"="+way)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); c.Wait() })
	p := &relayProcess{pid: c.Process.Pid, in: in, out: bufio.NewReader(out)}
	if p.addr, err = p.out.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
	p.addr = strings.TrimSpace(p.addr)
	return p
}

// settle waits for a number of pairs.
func (p *relayProcess) settle(b *testing.B, pairs int) {
	fmt.Fprintln(p.in, pairs)
	if _, err := p.out.ReadString('\n'); err != nil {
		b.Fatal(err)
	}
}

// cpu is what the process has used.
func (p *relayProcess) cpu(b *testing.B) time.Duration {
	var sum time.Duration
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, t := range tasks { // schedstat counts in nanoseconds; threads of Go do not end
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", p.pid, t.Name()))
		if err != nil {
			b.Fatal(err)
		}
		n, _ := strconv.ParseInt(strings.Fields(string(s))[0], 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

// memory is the resident memory of the process's own, in bytes.
func (p *relayProcess) memory(b *testing.B) int {
	s, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(s)) {
		if f := strings.Fields(line); f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1])
			return n << 10
		}
	}
	b.Fatal("no Pss")
	return 0
}

// listen makes a gateway; serve gets its connections.
func listen(b *testing.B, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
		}
	}()
	return l.Addr().String()
}

func BenchmarkEcho(b *testing.B) {
	const conns = 64
	for _, size := range []int{128, 64 << 10} {
		for _, way := range []string{"parked", "goroutines"} {
			b.Run(fmt.Sprintf("%dB/%s", size, way), func(b *testing.B) {
				message := frame(2, size, true)
				p := startRelay(b, way, listen(b, func(c net.Conn) {
					go func() {
						defer c.Close()
						buf := make([]byte, len(message))
						for {
							if _, err := io.ReadFull(c, buf); err != nil {
								return
							}
							c.Write(buf)
						}
					}()
				}))
				var all []net.Conn
				for range conns {
					c, err := net.Dial("tcp", p.addr)
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					all = append(all, c)
				}
				p.settle(b, conns)
				work := make(chan struct{}, conns)
				before := p.cpu(b)
				b.SetBytes(int64(2 * size))
				b.ResetTimer()
				var wg sync.WaitGroup
				for _, c := range all {
					wg.Go(func() {
						buf := make([]byte, len(message))
						for range work {
							c.Write(message)
							if _, err := io.ReadFull(c, buf); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				for range b.N {
					work <- struct{}{}
				}
				close(work)
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64((p.cpu(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
			})
		}
	}
}

func BenchmarkIdle(b *testing.B) {
	const pairs = 5000
	for _, way := range []string{"parked", "goroutines"} {
		b.Run(way, func(b *testing.B) {
			for range b.N {
				var mu sync.Mutex
				var far []net.Conn
				p := startRelay(b, way, listen(b, func(c net.Conn) { mu.Lock(); far = append(far, c); mu.Unlock() }))
				p.settle(b, 0)
				before, cpu := p.memory(b), p.cpu(b)
				for range pairs {
					c, err := net.Dial("tcp", p.addr)
					if err != nil {
						b.Fatal(err)
					}
					mu.Lock()
					far = append(far, c)
					mu.Unlock()
				}
				p.settle(b, pairs)
				b.ReportMetric(float64(p.memory(b)-before)/pairs, "B/pair")
				fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(fds))/pairs, "fds/pair")
				b.ReportMetric(float64((p.cpu(b)-cpu).Microseconds())/pairs, "cpu-us/pair")
				for _, c := range far {
					c.(*net.TCPConn).SetLinger(0) // leaves no port in TIME_WAIT
					c.Close()
				}
			}
		})
	}
}
