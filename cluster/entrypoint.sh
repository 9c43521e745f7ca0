#!/usr/bin/env bash
# The entrypoint of kuberay.yaml's job: runs a command, and keeps KubeRay from repeating what would end alike.
#   cluster/entrypoint.sh COMMAND...
# KubeRay tries every job again that FAILED, whatever its exit status. Status 2 (wrong usage) and 3
# (incomplete, after raygrad's own retries) want a person to look: the job stops itself, and a job that
# is STOPPED is over. A lost head, a kill and status 1 are tried again.
set -uo pipefail

"$@"
status=$?
if [ $status = 2 ] || [ $status = 3 ]; then
  echo "exit status $status: the job stops itself, as another try would end alike" >&2
  id=$(python -c 'import json, os; print(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])') &&
    ray job stop --address="${RAYGRAD_JOBS:-http://127.0.0.1:8265}" --no-wait "$id" && sleep "${RAYGRAD_STOP_S:-60}"
fi
exit $status
