package devcluster

import (
	"bufio"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestKillStrays kills what bears a mark, also a child that has lost it, and no other.
func TestKillStrays(t *testing.T) {
	const script = "env -i sleep 300 & echo $!; wait"
	start := func(dir string) (cmd *exec.Cmd, child int) {
		cmd = exec.Command("sh", "-c", script)
		cmd.Env = agentEnv(mark(dir))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err == nil {
			child, err = strconv.Atoi(strings.TrimSpace(line))
		}
		if err != nil {
			t.Fatal(err)
		}
		return cmd, child
	}
	dir := t.TempDir()
	ours, child := start(dir + "/nomad")
	other, _ := start(dir + "/nomad2")
	defer other.Wait()
	defer killStrays(mark(dir + "/nomad2"))

	if got := strays(mark(dir + "/nomad")); len(got) != 2 || got[0] != ours.Process.Pid || got[1] != child {
		t.Errorf("strays are %v; want %d and its child %d", got, ours.Process.Pid, child)
	}
	killStrays(mark(dir + "/nomad"))
	if err := ours.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v; want it killed", err)
	}
	if got := strays(mark(dir + "/nomad2")); len(got) != 2 {
		t.Errorf("of another stack %v are left; want both", got)
	}
}
