package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"openclaw-sandbox/internal/devcluster"
)

// contender keeps data sets in the object store.
type contender interface {
	// seed stores a data set for the first time.
	seed(ctx context.Context, d *dataset, url string) error
	// save stores what changed since.
	save(ctx context.Context, d *dataset, url string) (usage, error)
	// restore has it back in an empty folder, on a node that holds nothing of it.
	restore(ctx context.Context, d *dataset, url, into string) (usage, error)
}

// peer is a program that somebody else wrote, with the flags that its documentation
// has for speed. Each command gets the S3 server's URL.
type peer struct {
	b        *bench
	name     string
	init     func(d *dataset, url string) [][]string
	saves    func(d *dataset, url string) []string
	restores func(d *dataset, url, into string) []string
}

func (p *peer) seed(ctx context.Context, d *dataset, url string) error {
	var commands [][]string
	if p.init != nil {
		commands = p.init(d, url)
	}
	for _, argv := range commands {
		if _, err := measured(ctx, p.b.env(url), d.dir, argv...); err != nil {
			return err
		}
	}
	_, err := p.save(ctx, d, url)
	return err
}

func (p *peer) save(ctx context.Context, d *dataset, url string) (usage, error) {
	return measured(ctx, p.b.env(url), d.dir, p.saves(d, url)...)
}

func (p *peer) restore(ctx context.Context, d *dataset, url, into string) (usage, error) {
	argv := p.restores(d, url, into)
	if err := emptied(p.b.path("cache-restore")); err != nil {
		return usage{}, err
	}
	settle()
	return measured(ctx, p.b.env(url), into, argv...)
}

// env is what a peer finds in its environment: the credentials, and a home of its own.
func (b *bench) env(url string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "HOME=" + b.path("home"), "XDG_CACHE_HOME=" + b.path("cache"),
		"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secretKey, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"RCLONE_S3_PROVIDER=Other", "RCLONE_S3_ENV_AUTH=true", "RCLONE_S3_ENDPOINT=" + url, "RCLONE_S3_NO_CHECK_BUCKET=true",
		"RESTIC_PASSWORD=bench", "KOPIA_PASSWORD=bench", "KOPIA_CHECK_FOR_UPDATES=false"}
}

// peers are all of them. Names of programs are paths in the cache of tools/install.
func (b *bench) peers() (map[string]contender, error) {
	tools := map[string]string{}
	for _, name := range []string{"rclone", "s5cmd", "restic", "kopia"} {
		var err error
		if tools[name], err = devcluster.Tool(name); err != nil {
			return nil, fmt.Errorf("%w (tools/install --bench-state)", err)
		}
	}
	s5cmd := func(url string, args ...string) []string {
		return append([]string{tools["s5cmd"], "--log", "error", "--endpoint-url", url, "--numworkers", "64"}, args...)
	}
	shell := func(format string, args ...any) []string {
		return []string{"bash", "-o", "pipefail", "-c", fmt.Sprintf(format, args...)}
	}
	// Server's time instead of the file's own spares it a request for each file.
	rclone := []string{tools["rclone"], "--config", "", "--transfers", "32", "--checkers", "64", "--fast-list", "--use-server-modtime"}
	restic := func(d *dataset, url, cache string, args ...string) []string {
		return append([]string{tools["restic"], "-q", "-r", "s3:" + url + "/" + bucket + "/restic-" + d.name, "--cache-dir", b.path(cache), "-o", "s3.connections=32"}, args...)
	}
	kopia := func(config string, args ...string) []string {
		return append([]string{tools["kopia"], "--config-file", config, "--no-progress", "--no-auto-maintenance", "--log-level", "error"}, args...)
	}
	object := func(d *dataset) string { return "s3://" + bucket + "/floor/" + d.name + ".tar.zst" }
	return map[string]contender{
		nameRclone: &peer{b: b, name: nameRclone,
			saves: func(d *dataset, _ string) []string {
				return append(rclone, "sync", "--update", d.dir, ":s3:"+bucket+"/rclone/"+d.name)
			},
			restores: func(d *dataset, _, into string) []string {
				return append(rclone, "copy", "--no-check-dest", ":s3:"+bucket+"/rclone/"+d.name, into)
			}},
		nameS5cmd: &peer{b: b, name: nameS5cmd,
			saves: func(d *dataset, url string) []string {
				return s5cmd(url, "sync", "--delete", d.dir+"/", "s3://"+bucket+"/s5cmd/"+d.name+"/")
			},
			restores: func(d *dataset, url, into string) []string {
				return s5cmd(url, "cp", "s3://"+bucket+"/s5cmd/"+d.name+"/*", into+"/")
			}},
		nameRestic: &peer{b: b, name: nameRestic,
			init: func(d *dataset, url string) [][]string { return [][]string{restic(d, url, "cache-restic", "init")} },
			saves: func(d *dataset, url string) []string {
				return restic(d, url, "cache-restic", "backup", "--no-scan", "--read-concurrency", "8", d.dir)
			},
			restores: func(d *dataset, url, into string) []string {
				return restic(d, url, "cache-restore", "restore", "latest:"+d.dir, "--target", into)
			}},
		nameKopia: &peer{b: b, name: nameKopia,
			init: func(d *dataset, url string) [][]string {
				config := b.path("kopia-" + d.name + ".json")
				return [][]string{
					kopia(config, "repository", "create", "s3", "--bucket", bucket, "--prefix", "kopia-"+d.name+"/", "--endpoint", strings.TrimPrefix(url, "http://"),
						"--disable-tls", "--region", "us-east-1", "--access-key", accessKey, "--secret-access-key", secretKey, "--cache-directory", b.path("cache-kopia-"+d.name)),
					kopia(config, "policy", "set", "--global", "--compression", "zstd-fastest", "--max-parallel-file-reads", "8"),
				}
			},
			saves: func(d *dataset, url string) []string {
				return kopia(b.kopiaConfig(d, url, "cache-kopia-"+d.name), "snapshot", "create", "--parallel", "16", d.dir)
			},
			restores: func(d *dataset, url, into string) []string {
				return kopia(b.kopiaConfig(d, url, "cache-restore"), "restore", "--parallel", "32", "--snapshot-time", "latest", "--no-ignore-permission-errors", d.dir, into)
			}},
		nameFloor: &peer{b: b, name: nameFloor,
			saves: func(d *dataset, url string) []string {
				return shell("tar -cf - . | zstd -q -T0 -c | %s", strings.Join(s5cmd(url, "pipe", object(d)), " "))
			},
			restores: func(d *dataset, url, into string) []string {
				return shell("%s | zstd -q -d -c | tar -xf - -C %s", strings.Join(s5cmd(url, "cat", object(d)), " "), into)
			}},
		nameLocal: &peer{b: b, name: nameLocal,
			saves: func(d *dataset, _ string) []string {
				return shell("tar -cf - . | zstd -q -T0 -c >%s", b.path(d.name+".tar.zst"))
			},
			restores: func(d *dataset, _, into string) []string {
				return shell("zstd -q -d -c %s | tar -xf - -C %s", b.path(d.name+".tar.zst"), into)
			}},
	}, nil
}

// kopiaConfig writes the configuration that was made with the repository, for
// another way to the same server and another cache.
func (b *bench) kopiaConfig(d *dataset, url, cache string) string {
	config := map[string]any{}
	raw, err := os.ReadFile(b.path("kopia-" + d.name + ".json"))
	if err == nil {
		err = json.Unmarshal(raw, &config)
	}
	storage, _ := config["storage"].(map[string]any)
	options, _ := storage["config"].(map[string]any)
	caching, _ := config["caching"].(map[string]any)
	if err != nil || options == nil || caching == nil {
		return "" // kopia will say so
	}
	options["endpoint"] = strings.TrimPrefix(url, "http://")
	caching["cacheDirectory"] = b.path(cache)
	file := b.path(filepath.Base(cache) + "-" + strings.NewReplacer(":", "-", "/", "").Replace(url) + "-" + d.name + ".json")
	if raw, err = json.Marshal(config); err == nil {
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		return ""
	}
	return file
}
