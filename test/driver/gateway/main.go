// Command gateway stands in for OpenClaw where a test is about the driver: it
// serves in milliseconds and does what it is asked.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

var mapped []byte

func mapFile(name, mb string) error {
	n, err := strconv.Atoi(mb)
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte{1}, n<<20)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if mapped, err = syscall.Mmap(int(f.Fd()), 0, n<<20, syscall.PROT_READ, syscall.MAP_PRIVATE); err != nil {
		return err
	}
	if c := bytes.Count(mapped, []byte{1}); c != n<<20 {
		return fmt.Errorf("the file has %d bytes", c)
	}
	return nil
}

func main() {
	state := os.Getenv("SANDBOX_STATE")
	if code := os.Getenv("TEST_EXIT"); code != "" {
		fmt.Fprintln(os.Stderr, "the gateway gives up: disk on fire")
		time.Sleep(200 * time.Millisecond) // so that the log is collected
		n, _ := strconv.Atoi(code)
		os.Exit(n)
	}
	// As process 1 of its namespace it gets only the signals that it handles.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1, syscall.SIGTERM)
	go func() {
		if <-asked == syscall.SIGTERM {
			os.Exit(0)
		}
		os.Exit(9)
	}()
	http.HandleFunc("/startupz", func(w http.ResponseWriter, r *http.Request) {
		if os.Getenv("TEST_NEVER_READY") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, `{"status":"started"}`)
	})
	http.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(filepath.Join(state, r.FormValue("name")), []byte(r.FormValue("text")), 0o600); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		w.Write(b)
	})
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		for _, kv := range os.Environ() {
			fmt.Fprintln(w, kv)
		}
	})
	http.HandleFunc("/pid", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getpid(), " ", os.Getuid()) })
	http.HandleFunc("/map", func(w http.ResponseWriter, r *http.Request) { // so many MB of a file, read into memory
		if err := mapFile(filepath.Join(os.Getenv("NOMAD_TASK_DIR"), "mapped"), r.FormValue("mb")); err != nil {
			http.Error(w, err.Error(), 500)
		}
	})
	http.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) { os.Exit(7) })
	http.HandleFunc("/connect", func(w http.ResponseWriter, r *http.Request) {
		c, err := net.DialTimeout("tcp", r.FormValue("to"), time.Second)
		if err != nil {
			fmt.Fprint(w, "closed")
			return
		}
		c.Close()
		fmt.Fprint(w, "open")
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+os.Getenv("NOMAD_PORT_gateway"), nil))
	os.Exit(1)
}
