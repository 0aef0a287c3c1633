#!/bin/sh
# The one entry point of a sandbox, in every runtime: with an image, without one,
# and on a laptop. It lays out the state, merges the operator's settings into the
# user's, and becomes the OpenClaw gateway.
#
#   start.sh              run the gateway
#   start.sh warm DIR     fill the compile cache DIR for this uid, then end
#
# Environment (all optional):
#   SANDBOX_STATE      where the user's state is mounted             (/state)
#   SANDBOX_CONFIG     the operator's settings, {defaults, enforced} ($NOMAD_TASK_DIR/gateway.json)
#   SANDBOX_PORT       the port the gateway listens on               ($NOMAD_PORT_gateway, or 18789)
#   SANDBOX_NODE       the node binary                               (node on PATH)
#   SANDBOX_OPENCLAW   the openclaw package's folder                 (/opt/openclaw/node_modules/openclaw)
#   NODE_COMPILE_CACHE a compile cache that `start.sh warm` filled   (/opt/openclaw/compile-cache)
set -eu
umask 077

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
node=${SANDBOX_NODE:-node}
package=${SANDBOX_OPENCLAW:-/opt/openclaw/node_modules/openclaw}

fail() { echo "start.sh: $1" >&2; exit 78; } # 78 is EX_CONFIG, as the gateway's own

command -v "$node" >/dev/null 2>&1 || fail "no node at \"$node\"; set SANDBOX_NODE or put node on PATH"
[ -f "$package/openclaw.mjs" ] || fail "no OpenClaw at \"$package\"; set SANDBOX_OPENCLAW to the package's folder"

# The gateway's own shells and helpers must find the same node.
PATH=$(dirname -- "$(command -v "$node")"):$PATH
# One supervised process: no self-update, no respawn, no multicast.
OPENCLAW_NO_RESPAWN=1 OPENCLAW_NO_AUTO_UPDATE=1 OPENCLAW_DISABLE_BONJOUR=1
OPENCLAW_EXEC_SHELL_SNAPSHOT=0 NO_COLOR=1
export PATH OPENCLAW_NO_RESPAWN OPENCLAW_NO_AUTO_UPDATE OPENCLAW_DISABLE_BONJOUR OPENCLAW_EXEC_SHELL_SNAPSHOT NO_COLOR

# layout STATE: the folders that are saved, and the variables that point at them.
layout() {
	OPENCLAW_STATE_DIR=$1/openclaw
	OPENCLAW_CONFIG_PATH=$1/openclaw/openclaw.json
	OPENCLAW_WORKSPACE_DIR=$1/workspace
	HOME=$1/home
	export OPENCLAW_STATE_DIR OPENCLAW_CONFIG_PATH OPENCLAW_WORKSPACE_DIR HOME
	mkdir -p "$OPENCLAW_STATE_DIR" "$OPENCLAW_WORKSPACE_DIR" "$HOME"
}

case ${1:-run} in
run)
	state=${SANDBOX_STATE:-/state}
	[ -d "$state" ] && [ -w "$state" ] || fail "the state folder \"$state\" is missing or not writable for uid $(id -u)"
	layout "$state"
	if [ -z "${NODE_COMPILE_CACHE:-}" ] && [ -d /opt/openclaw/compile-cache ]; then
		export NODE_COMPILE_CACHE=/opt/openclaw/compile-cache
	fi
	# Scratch space that is never saved; its own folder, since /tmp may be shared.
	TMPDIR=$(mktemp -d "${NOMAD_TASK_DIR:-/tmp}/tmp.XXXXXX" 2>/dev/null || mktemp -d)
	export TMPDIR
	SANDBOX_CONFIG=${SANDBOX_CONFIG:-${NOMAD_TASK_DIR:-}/gateway.json}
	export SANDBOX_CONFIG
	"$node" "$here/prepare.mjs" "$package"
	cd "$OPENCLAW_WORKSPACE_DIR"
	exec "$node" "$package/openclaw.mjs" gateway run --port "${SANDBOX_PORT:-${NOMAD_PORT_gateway:-18789}}"
	;;
warm)
	[ $# -eq 2 ] || fail "usage: start.sh warm DIR"
	mkdir -p "$2"
	NODE_COMPILE_CACHE=$(CDPATH='' cd -- "$2" && pwd)
	export NODE_COMPILE_CACHE
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	layout "$scratch"
	TMPDIR=$scratch
	export TMPDIR OPENCLAW_OFFLINE=1
	"$node" "$here/warm.mjs" "$package"
	# Read-only for every sandbox that shares it.
	chmod -R a+rX "$NODE_COMPILE_CACHE"
	;;
*)
	fail "unknown command \"$1\"; use run or warm DIR"
	;;
esac
