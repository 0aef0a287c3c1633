// Starts the gateway once on an empty state, waits until it has started, and
// stops it: on its way out Node writes the compiled modules to the compile
// cache, which every later start shares.
//
//   node warm.mjs PACKAGE_DIR
import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { once } from "node:events";

const limitMs = 180_000;
const pkg = process.argv[2];

const probe = net.createServer().listen(0, "127.0.0.1");
await once(probe, "listening");
const port = probe.address().port;
probe.close();

fs.writeFileSync(
  process.env.OPENCLAW_CONFIG_PATH,
  JSON.stringify({
    gateway: {
      mode: "local",
      bind: "loopback",
      auth: { mode: "none" },
      controlUi: { root: path.join(pkg, "dist/control-ui") },
    },
    update: { checkOnStart: false },
  }),
);
const gateway = spawn(process.execPath, [path.join(pkg, "openclaw.mjs"), "gateway", "run", "--port", String(port)], {
  stdio: ["ignore", "ignore", "inherit"],
});
const exited = once(gateway, "exit");
const deadline = Date.now() + limitMs;
let started = false;
while (!started && gateway.exitCode === null && Date.now() < deadline) {
  try {
    started = (await fetch(`http://127.0.0.1:${port}/startupz`)).status === 200;
  } catch {}
  if (!started) await new Promise((r) => setTimeout(r, 100));
}
gateway.kill("SIGTERM");
const [code] = await exited;
if (!started) {
  console.error(`warm: the gateway did not start (exit code ${code})`);
  process.exit(1);
}
