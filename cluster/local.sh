#!/usr/bin/env bash
# A Ray head and worker nodes on this machine's loopback, to try the cluster ways of working:
#   cluster/local.sh FOLDER [WORKERS] [CPUS_PER_WORKER]
# Prints how to use it and the process ids that stop it. The head does no work, as on the clusters.
set -euo pipefail

folder=${1:?"a folder for logs and process ids"}
workers=${2:-1}
cpus=${3:-2}
port=${RAYGRAD_PORT:-26379}
dashboard_port=${RAYGRAD_DASHBOARD_PORT:-28265}
first_worker_port=${RAYGRAD_FIRST_WORKER_PORT:-30000}
ray=$(command -v "${RAY:-ray}")
# A job's `python` is found where `ray` is.
PATH=$(dirname "$ray"):$PATH
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
: >"$folder/pids"
# Ray's sockets stand here, and a socket's path may have 107 characters only.
temporary=$(mktemp -d /tmp/raygrad-XXXXXX)

# The dashboard and the job server listen on loopback only; Ray's other ports cannot be told to, so
# whoever connects must have this cluster's token.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$folder/token" RAY_USAGE_STATS_ENABLED=0 MALLOC_ARENA_MAX=1
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/token")

begin() { # NAME ARGUMENTS...: in a process group of its own, so that its id ends all of it
  local name=$1
  shift
  # A folder for each node, as on machines of their own: a node that unpacks a job's working
  # directory removes what stands there, which in a shared folder would be the one the job runs in.
  setsid "$ray" start --block --log-style=record --temp-dir="$temporary/$name" "$@" \
    >"$folder/$name.log" 2>&1 </dev/null &
  echo $! >>"$folder/pids"
}

answers() { (: >"/dev/tcp/$1/$2") 2>/dev/null; }

begin head --head --node-ip-address=127.0.0.2 --port="$port" \
  --ray-client-server-port=$((port + 1)) --num-cpus=0 --num-gpus=0 \
  --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" --include-dashboard=true \
  --dashboard-agent-listen-port=$((dashboard_port + 1)) \
  --min-worker-port="$first_worker_port" --max-worker-port=$((first_worker_port + 199))
for _ in $(seq 240); do
  answers 127.0.0.2 "$port" && answers 127.0.0.1 "$dashboard_port" && break
  kill -0 "$(head -n1 "$folder/pids")" 2>/dev/null || { cat "$folder/head.log" >&2; exit 1; }
  sleep 0.25
done
answers 127.0.0.1 "$dashboard_port" || { echo "no dashboard: see $folder/head.log" >&2; exit 1; }

for ((i = 1; i <= workers; i++)); do
  first=$((first_worker_port + 200 * i))
  begin "worker-$i" --node-ip-address="127.0.0.$((i + 2))" --address="127.0.0.2:$port" --num-cpus="$cpus" \
    --dashboard-agent-listen-port=$((dashboard_port + 1 + i)) \
    --min-worker-port="$first" --max-worker-port=$((first + 199))
done

cat <<TEXT
dashboard  http://127.0.0.1:$dashboard_port
logs       $folder, $temporary/*/session_latest/logs
submit     export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
           ray job submit --address=http://127.0.0.1:$dashboard_port --working-dir . -- python jobs/digits.py
stop       kill $(tr '\n' ' ' <"$folder/pids")
TEXT
