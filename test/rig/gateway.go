package rig

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// StreamPause is how long the stub's event stream lasts after its one event.
const StreamPause = 3 * time.Millisecond

// Bye is the message after which the stub closes a WebSocket.
const Bye = "bye"

// Gateway is a stub of a gateway: /bytes?n=N answers with N bytes, /stream sends one
// event at once and ends StreamPause later, /echo is a WebSocket that echoes until it
// is told Bye.
func Gateway() http.Handler {
	body := bytes.Repeat([]byte("x"), 1<<20)
	up := websocket.Upgrader{ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10, WriteBufferPool: bufferPool,
		CheckOrigin: func(*http.Request) bool { return true }}
	mux := http.NewServeMux()
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil || n < 0 || n > len(body) {
			http.Error(w, "n", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.Write(body[:n])
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // nginx would else wait for more
		io.WriteString(w, "data: first\n\n")
		http.NewResponseController(w).Flush()
		select {
		case <-time.After(StreamPause):
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		echo(c)
	})
	return mux
}

// echo sends back each message until the client is gone, or says Bye.
func echo(c *websocket.Conn) {
	var buf []byte
	for {
		kind, r, err := c.NextReader()
		if err != nil {
			return
		}
		if buf, err = appendAll(buf[:0], r); err != nil {
			return
		}
		if string(buf) == Bye || c.WriteMessage(kind, buf) != nil {
			return
		}
	}
}

// appendAll is io.ReadAll into a buffer that is used again.
func appendAll(b []byte, r io.Reader) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}
