#!/usr/bin/env bash
# Tells Ray that this spot node is to be taken away, two minutes before it is:
#   cluster/drain.sh [SECONDS_BETWEEN_QUESTIONS]
# Runs beside `ray start` on every worker of aws.yaml. EC2 announces the end in the instance's metadata
# (IMDSv2) and tells no process; a node that drains is given no new work, its trainings save at once,
# and what is lost with it is not held against them.
set -uo pipefail

every=${1:-5}
imds=http://169.254.169.254/latest
seconds=110 # of the 120 that EC2 gives

while :; do
  token=$(curl -sf -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/api/token") &&
    curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/spot/instance-action" &&
    break
  sleep "$every"
done
echo "EC2 takes this node away: it drains"
node=$(python -c 'import ray; ray.init(address="auto", logging_level=40); print(ray.get_runtime_context().get_node_id())')
ray drain-node --address="${RAY_HEAD_IP:?}:6379" --node-id="$node" --reason=DRAIN_NODE_REASON_PREEMPTION \
  --reason-message="EC2 takes the spot instance away" --deadline-remaining-seconds=$seconds
