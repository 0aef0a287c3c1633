// Runs inside the sandbox, as its user, before the gateway: writes the gateway's
// config and frees the leases of the run that this state comes from.
//
//   node prepare.mjs PACKAGE_DIR
//
// The config is  defaults < what the user changed < enforced.  The first and the
// last come from the operator (SANDBOX_CONFIG), the middle is the user's own
// openclaw.json, which lives in the state. A value that the user never touched
// follows the operator's default when that changes.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const pkg = process.argv[2];
const stateDir = process.env.OPENCLAW_STATE_DIR;
const configPath = process.env.OPENCLAW_CONFIG_PATH;
// What the operator's defaults were when the config was last written.
const memoPath = path.join(stateDir, ".platform-defaults.json");

const isObject = (v) => v !== null && typeof v === "object" && !Array.isArray(v);
const equal = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** over wins; objects merge, everything else is replaced. */
function merge(base, over) {
  if (!isObject(base) || !isObject(over)) return over === undefined ? base : over;
  const out = { ...base };
  for (const [k, v] of Object.entries(over)) if (k !== "__proto__") out[k] = merge(base[k], v);
  return out;
}

/** What of value differs from base; undefined when nothing does. */
function difference(value, base) {
  if (!isObject(value) || !isObject(base)) return equal(value, base) ? undefined : value;
  const out = {};
  for (const [k, v] of Object.entries(value)) {
    const d = difference(v, base[k]);
    if (d !== undefined) out[k] = d;
  }
  return Object.keys(out).length ? out : undefined;
}

function writeIfChanged(file, value) {
  const text = JSON.stringify(value, null, 2) + "\n";
  try {
    if (fs.readFileSync(file, "utf8") === text) return;
  } catch {}
  fs.writeFileSync(file + ".new", text, { mode: 0o600 });
  fs.renameSync(file + ".new", file);
}

/** The parsed file; undefined when there is none. A broken one is kept beside, never lost. */
function read(file, parse) {
  let text;
  try {
    text = fs.readFileSync(file, "utf8");
  } catch (e) {
    if (e.code === "ENOENT") return undefined;
    throw e;
  }
  try {
    const v = parse(text);
    if (isObject(v)) return v;
    throw new Error("not an object");
  } catch (e) {
    const aside = `${file}.unreadable-${Date.now()}`;
    fs.renameSync(file, aside);
    console.error(`prepare: ${path.basename(file)} is not valid (${e.message}); kept as ${path.basename(aside)}, going on without it`);
    return undefined;
  }
}

function writeConfig() {
  const source = process.env.SANDBOX_CONFIG;
  if (!fs.existsSync(source)) return; // an image run by hand keeps its own config
  const operator = JSON.parse(fs.readFileSync(source, "utf8").replaceAll("@package@", JSON.stringify(pkg).slice(1, -1)));
  const defaults = operator.defaults ?? {};
  let json5;
  try {
    json5 = createRequire(path.join(pkg, "package.json"))("json5"); // users may write comments
  } catch {}
  const saved = read(configPath, json5?.parse ?? JSON.parse) ?? {};
  const before = read(memoPath, JSON.parse) ?? {};
  const changed = difference(saved, before) ?? {};
  writeIfChanged(configPath, merge(merge(defaults, changed), operator.enforced ?? {}));
  writeIfChanged(memoPath, defaults);
}

// A state that was saved while its gateway ran bears that gateway's owner lease
// for five minutes, tied to its host's name. The driver's fence has already
// proved that no other run of this user can advance the state, so the lease
// says nothing any more.
async function freeLeases() {
  const file = path.join(stateDir, "state", "openclaw.sqlite");
  if (!fs.existsSync(file)) return;
  const { DatabaseSync } = await import("node:sqlite");
  const db = new DatabaseSync(file);
  try {
    const tables = new Set(db.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all().map((r) => r.name));
    if (tables.has("state_leases")) db.exec("DELETE FROM state_leases WHERE scope = 'gateway-owner'");
    if (tables.has("agent_database_leases")) db.exec("DELETE FROM agent_database_leases");
  } finally {
    db.close();
  }
}

writeConfig();
await freeLeases();
