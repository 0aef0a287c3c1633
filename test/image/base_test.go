package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openclaw-sandbox/internal/devcluster"
)

const (
	suite = "bookworm"
	// caBundle is where Debian keeps the certificates that a machine trusts.
	caBundle = "/etc/ssl/certs/ca-certificates.crt"
)

// baseDockerfile stands in for the public node image. It also trusts what this
// machine trusts, so that the build works behind a proxy that inspects TLS.
const baseDockerfile = `FROM debian
COPY node /usr/local/bin/
COPY npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
COPY ca.pem /usr/local/share/ca.pem
ENV NODE_EXTRA_CA_CERTS=/usr/local/share/ca.pem
`

// baseImage makes what the Dockerfile's BASE asks for, without a registry of
// images: a minimal Debian with this machine's npm and the pinned Node.
func (e *engine) baseImage(t *testing.T) string {
	t.Helper()
	e.docker(t, "import", debian(t), "debian")
	node, err := devcluster.Tool("node")
	if err != nil {
		t.Fatal(err)
	}
	npm, err := exec.LookPath("npm")
	if err == nil {
		npm, err = filepath.EvalSymlinks(npm) // …/npm/bin/npm-cli.js
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for to, from := range map[string]string{"node": node, "npm": filepath.Dir(filepath.Dir(npm)), "ca.pem": caBundle} {
		run(t, "cp", "-rL", from, filepath.Join(dir, to))
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(baseDockerfile), 0o600); err != nil {
		t.Fatal(err)
	}
	e.docker(t, "build", "--network=none", "--tag=base", dir)
	return "base"
}

// debian is a tarball of a minimal Debian, made once and kept in the cache.
func debian(t *testing.T) string {
	t.Helper()
	file := filepath.Join(devcluster.CacheDir(), "debian-"+suite+".tar")
	if _, err := os.Stat(file); err == nil {
		return file
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	run(t, "debootstrap", "--variant=minbase", suite, root)
	run(t, "tar", "-C", root, "--exclude=./var/cache/apt/archives/*.deb", "-cf", file+".new", ".")
	// Half a tarball never bears the name.
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	return file
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, last(string(out)))
	}
}
