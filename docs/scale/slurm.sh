#!/usr/bin/env bash
# Ray over a Slurm allocation, and a study on it:  sbatch docs/scale/slurm.sh study.yaml
#SBATCH --job-name=offramp
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
# For GPUs: #SBATCH --gpus-per-task=4
set -euo pipefail

study=${1:?a study file}
store=${STORE:-$PWD/runs} # a folder that all nodes see, or a URL
port=${PORT:-6379}
gpus=${SLURM_GPUS_ON_NODE:-0}

# Only who knows the token may use the cluster. It is in the environment of this job alone.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN
export RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
export RAY_ADDRESS=$ip:$port

step() { # a node's part, as long as the job lasts; what Ray says lies apart
  srun --nodes=1 --ntasks=1 --nodelist="$1" --overlap --output="slurm-$SLURM_JOB_ID-%N.log" \
    ray start --block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --disable-usage-stats "${@:2}" &
}

step "$head" --head --node-ip-address="$ip" --port="$port" --include-dashboard=false
for node in "${nodes[@]:1}"; do
  step "$node" --address="$RAY_ADDRESS"
done

# Machines that come up later are used as well: the study waits for the first only.
for _ in $(seq 60); do
  ray status >/dev/null 2>&1 && break
  sleep 2
done

# The driver runs here, on the first node. SIGTERM ends it, and it has everything saved before.
offramp run "$study" --on ray --store "$store" &
driver=$!
trap 'kill -TERM "$driver"' TERM INT
code=0
wait "$driver" || code=$?
trap - TERM INT
wait "$driver" 2>/dev/null || code=$?
kill $(jobs -p) 2>/dev/null || true
exit "$code"
