#!/usr/bin/env bash
# Starts a Ray cluster with token authentication on this machine. A single node listens on 127.0.0.1 only.
#
#   cluster/local.sh start [NODES]    starts a head and NODES more nodes (default 0)
#   cluster/local.sh status           exits with 0 if the cluster runs, else with 1
#   cluster/local.sh stop             stops this cluster and no other
#
# Environment variables and their defaults: SLAMS_RAY_DIR (/tmp/slams_ray-<uid>), SLAMS_RAY_PORT (6380),
# SLAMS_DASHBOARD_PORT (8265), SLAMS_RAY_BIN (.venv/bin), SLAMS_RAY_ARGS (more arguments for every
# `ray start`), RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (~/.ray/auth_token, created if it is missing).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
host=127.0.0.1
port=${SLAMS_RAY_PORT:-6380}
dashboard_port=${SLAMS_DASHBOARD_PORT:-8265}
# Contains sockets, whose paths must be shorter than 107 bytes.
dir=${SLAMS_RAY_DIR:-/tmp/slams_ray-$(id -u)}
bin=${SLAMS_RAY_BIN:-$root/.venv/bin}
read -ra extra <<<"${SLAMS_RAY_ARGS:-}"

# Jobs use the same `python` as the nodes.
export PATH="$bin:$PATH" RAY_AUTH_MODE=token
# Ray makes its directory and logs accessible for everybody; this protects the directory around it.
umask 077

fail() {
  echo "local.sh: $*" >&2
  exit 1
}

is_open() { (: <"/dev/tcp/$host/$1") 2>/dev/null; }

# The id in a pid file may belong to another process by now.
is_ours() { [[ "$(ps -ww -o args= -p "$1" 2>/dev/null)" == *"--temp-dir=$dir/ray"* ]]; }

# Ray replaces 127.0.0.1 by the machine's external address and listens on all interfaces, unless it
# believes that nodes cannot join, as on macOS.
stay_on_loopback() { export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0; }

pids() { cat "$dir"/*.pid 2>/dev/null || true; }

ensure_token() {
  [[ -n ${RAY_AUTH_TOKEN:-} ]] && return
  local token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
  if [[ ! -s $token ]]; then
    [[ -z ${RAY_AUTH_TOKEN_PATH:-} ]] || fail "there is no token in $RAY_AUTH_TOKEN_PATH"
    ray get-auth-token --generate &>/dev/null || fail "ray get-auth-token --generate failed"
  fi
  chmod 600 "$token"
}

# launch NAME ARGUMENT...: starts a node in its own process group, which `stop` can end as a whole.
launch() {
  local name=$1 pid
  shift
  : >"$dir/$name.log"
  set -m
  # Random ports: with the defaults a second cluster on the machine would conflict with the first.
  # A directory for each node: in a common one a second node, at its first task, would remove and
  # unpack again the working directory of a job that runs in it.
  nohup ray start --block --temp-dir="$dir/ray${name//[!0-9]/}" --disable-usage-stats \
    --dashboard-agent-listen-port=0 --min-worker-port=0 --max-worker-port=0 \
    "$@" "${extra[@]}" </dev/null >"$dir/$name.log" 2>&1 &
  pid=$!
  set +m
  echo "$pid" >"$dir/$name.pid"
  until grep -q "Ray runtime started" "$dir/$name.log"; do
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.5
  done
}

start_node() {
  local attempt
  for attempt in 1 2 3; do
    launch "$@" && return
    end "$(cat "$dir/$1.pid")"
    # A node has 30 s to start. On a busy disk the next attempt finds its files in the cache.
    grep -q "timed out during startup" "$dir/$1.log" || break
  done
  tail -n 20 "$dir/$1.log" >&2
  stop
  fail "$1 did not start in $attempt attempts, see $dir/$1.log"
}

start() {
  local nodes=${1:-0} cpus i
  [[ $nodes =~ ^[0-9]+$ ]] || fail "NODES is $nodes, expected a number"
  [[ -x $bin/ray ]] || fail "there is no ray in $bin: make install, or set SLAMS_RAY_BIN"
  mkdir -p "$dir"
  [[ -O $dir ]] || fail "$dir belongs to another user: set SLAMS_RAY_DIR"
  [[ -z $(pids) ]] || fail "the cluster runs already, or was killed: run cluster/local.sh stop"
  for i in "$port" $((port + 1)) "$dashboard_port"; do
    is_open "$i" && fail "port $i is in use: set SLAMS_RAY_PORT or SLAMS_DASHBOARD_PORT"
  done
  ensure_token
  # Divided, because every node would count all cores and GPUs of the machine as its own.
  # Without OMP_NUM_THREADS, which nproc would return if it is set.
  cpus=$(($(env -u OMP_NUM_THREADS nproc) / (nodes + 1)))
  cpus=$((cpus > 0 ? cpus : 1))
  ((nodes > 0)) || stay_on_loopback
  start_node head --head --port="$port" --ray-client-server-port=$((port + 1)) \
    --dashboard-host=$host --dashboard-port="$dashboard_port" --num-cpus=$cpus
  for ((i = 1; i <= nodes; i++)); do
    start_node "node-$i" --address="$host:$port" --num-cpus=$cpus --num-gpus=0
  done
  until is_open "$dashboard_port"; do sleep 0.5; done
  cat <<EOF
export PATH=$bin:\$PATH RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://$host:$dashboard_port
ray job submit --working-dir $root -- python -m jobs.pipeline demo --workspace $root/runs/demo
EOF
}

# end PID: waits for the end of a node, and kills it and the processes it left behind.
end() {
  local waited
  for ((waited = 0; waited < 20; waited++)); do
    is_ours "$1" || break
    sleep 0.5
  done
  if is_ours "$1" || ! kill -0 "$1" 2>/dev/null; then
    kill -KILL -- "-$1" 2>/dev/null || true
  fi
}

stop() {
  local pid waited
  [[ -n $(pids) ]] || return 0
  for pid in $(pids); do is_ours "$pid" && kill "$pid"; done
  for pid in $(pids); do end "$pid"; done
  rm -f "$dir"/*.pid
  # Ray's servers may outlive their node for a moment, and the next start needs the port.
  for ((waited = 0; waited < 20; waited++)); do
    is_open "$port" || break
    sleep 0.5
  done
}

status() {
  local pid
  [[ -n $(pids) ]] || fail "no cluster runs in $dir"
  for pid in $(pids); do
    is_ours "$pid" || fail "a node has ended, see $dir/*.log; run cluster/local.sh stop to clean up"
  done
  [[ -e $dir/node-1.pid ]] || stay_on_loopback
  ray status --address "$host:$port"
}

case ${1:-} in
  start) start "${2:-}" ;;
  stop) stop ;;
  status) status ;;
  *) fail "usage: cluster/local.sh start [NODES], status or stop" ;;
esac
