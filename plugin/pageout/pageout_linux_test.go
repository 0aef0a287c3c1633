package pageout

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// touched is how much memory the child uses, in bytes.
const touched = 64 << 20

func TestMain(m *testing.M) {
	if file, ok := os.LookupEnv("PAGEOUT_CHILD"); ok {
		if err := child(file); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child maps a file, or memory if there is none, and says what is in it each time
// that it is asked.
func child(file string) error {
	fd, flags := -1, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		fd, flags = int(f.Fd()), unix.MAP_PRIVATE
	}
	prot := unix.PROT_READ
	if file == "" {
		prot |= unix.PROT_WRITE
	}
	b, err := unix.Mmap(fd, 0, touched, prot, flags)
	if err != nil {
		return err
	}
	if file == "" {
		noise(b)
	}
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		fmt.Printf("%x\n", sha256.Sum256(b))
	}
	return asked.Err()
}

// noise fills b with what does not compress.
func noise(b []byte) { rand.NewChaCha8([32]byte{1}).Read(b) }

// start runs a child and returns its pid, and how to ask it.
func start(t *testing.T, file string) (pid int, ask func() string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PAGEOUT_CHILD="+file)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	answers := bufio.NewReader(out)
	return cmd.Process.Pid, func() string {
		t.Helper()
		io.WriteString(in, "\n")
		line, err := answers.ReadString('\n')
		if err != nil {
			t.Fatalf("the child: %v %s", err, line)
		}
		return line
	}
}

// swap gives the machine a swap file for the length of a test.
func swap(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a swap file needs root")
	}
	file := filepath.Join(t.TempDir(), "swap")
	if out, err := exec.Command("sh", "-c", `dd if=/dev/zero of="$1" bs=1M count=128 status=none && chmod 600 "$1" && mkswap -q "$1" && swapon "$1"`, "sh", file).CombinedOutput(); err != nil {
		t.Skipf("this machine takes no swap file: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("swapoff", file).CombinedOutput(); err != nil {
			t.Errorf("swapoff: %v: %s", err, out)
		}
	})
}

// The memory of a process that stands still leaves the RAM, and is what it was
// when the process goes on.
func TestOut(t *testing.T) {
	for _, kind := range []string{"memory", "file"} {
		t.Run(kind, func(t *testing.T) {
			file := ""
			if kind == "memory" {
				swap(t)
			} else {
				file = mapped(t)
			}
			pid, ask := start(t, file)
			want := ask()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if r, err := Out(ended, "", []int{pid}); !errors.Is(err, context.Canceled) || r.Gone() > touched/8 {
				t.Errorf("cancelled before it began: %+v, %v", r, err)
			}
			r, err := Out(t.Context(), "", []int{pid, 1 << 30}) // the second has ended long ago
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d of %d KB went", r.Gone()>>10, r.Before>>10)
			if r.Before < touched || r.Gone() < touched*3/4 {
				t.Errorf("%+v: want nearly all of %d bytes gone", r, touched)
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if got := ask(); got != want {
				t.Errorf("the memory came back as %s, was %s", got, want)
			}
		})
	}
}

// mapped is a file that is on the disk.
func mapped(t *testing.T) string {
	t.Helper()
	var fs unix.Statfs_t
	dir := t.TempDir()
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("the folder for temporary files is in RAM itself; set TMPDIR to one on a disk")
	}
	f, err := os.Create(filepath.Join(dir, "mapped"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, touched)
	noise(b)
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// A cgroup is asked for all of its memory, a step at a time; one without the files
// for it is left to the other way.
func TestReclaim(t *testing.T) {
	dir := t.TempDir()
	if err := reclaim(t.Context(), dir); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a cgroup without a memory controller: %v", err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("memory.current", fmt.Sprintf("%d\n", 2*step+5))
	if err := reclaim(t.Context(), dir); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a cgroup of a kernel without memory.reclaim: %v", err)
	}
	write("memory.reclaim", "")
	if err := reclaim(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "memory.reclaim"))
	if want := strings.Repeat(fmt.Sprint(step), 2) + "5"; err != nil || string(text) != want {
		t.Errorf("the kernel was told %q, %v; want %q", text, err, want)
	}
}
