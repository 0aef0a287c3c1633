package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// files serves the certificate of two PEM files, whatever way they are replaced:
// their bytes are compared, not their times.
type files struct {
	log *slog.Logger
	now atomic.Pointer[tls.Certificate]

	mu        sync.Mutex // guards what follows
	paths     [2]string  // of the certificate and of the key
	texts     [2][]byte  // as they were last read, good or not
	complaint string     // what was logged of them; "" if they are good
}

func newFiles(certFile, keyFile string, log *slog.Logger) (*files, error) {
	f := &files{log: log}
	return f, f.use(certFile, keyFile)
}

func (f *files) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.now.Load(), nil }

func (f *files) use(certFile, keyFile string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	paths := [2]string{certFile, keyFile}
	texts, err := read(paths)
	if err != nil {
		return err
	}
	c, err := parse(texts)
	if err != nil {
		return err
	}
	f.paths, f.texts, f.complaint = paths, texts, ""
	f.now.Store(c)
	return nil
}

// watch takes a changed certificate over. One that is broken, as between the
// replacement of one file and of the other, is logged, and the old one kept.
func (f *files) watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look()
		}
	}
}

func (f *files) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	texts, err := read(f.paths)
	if err == nil && bytes.Equal(texts[0], f.texts[0]) && bytes.Equal(texts[1], f.texts[1]) {
		return
	}
	var c *tls.Certificate
	if err == nil {
		f.texts = texts
		c, err = parse(texts)
	}
	if err != nil {
		if text := err.Error(); text != f.complaint {
			f.complaint = text
			f.log.Error("the changed certificate is not valid; the old one stays", "cert_file", f.paths[0], "error", err)
		}
		return
	}
	f.complaint = ""
	f.now.Store(c)
	f.log.Info("certificate changed", "cert_file", f.paths[0], "expires", c.Leaf.NotAfter)
}

func read(paths [2]string) (texts [2][]byte, err error) {
	for i, path := range paths {
		if texts[i], err = os.ReadFile(path); err != nil {
			return texts, fmt.Errorf("read the certificate: %w", err)
		}
	}
	return texts, nil
}

func parse(texts [2][]byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return &c, nil
}
