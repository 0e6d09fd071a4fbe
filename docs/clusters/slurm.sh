#!/bin/bash
# One allocation, one sweep, the same script again and again: `sbatch docs/clusters/slurm.sh`.
# The working folder lies in a file system that all nodes see; the nodes need no other common one.
#SBATCH --job-name=sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token RAY_USAGE_STATS_ENABLED=0
[ -s "$RAY_AUTH_TOKEN_PATH" ] || ray get-auth-token --generate >/dev/null
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Two minutes before its time ends, the job has the sweep stop, to be resumed. A signal to all
# processes of the step would end Ray with it.
trap 'keras-sweeps stop nightly' TERM

# The driver runs on the first node, which takes trials, too. The other nodes' commands outlive it,
# so the step ends with the first command that does; the sweep's own status is written down, since
# srun's is that of the commands that it ends.
rm -f nightly.status
srun --kill-on-bad-exit=1 --wait=60 \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" -- \
  bash -c 'keras-sweeps run "$@"; status=$?; echo "$status" >nightly.status; exit "$status"' sweep \
  --space cnn --dataset mnist --name nightly --resume auto --timeout none --trials 500 --threads 4 \
  --executor ray --ray-address "$head:6379" &
while kill -0 $! 2>/dev/null; do wait $!; done # A signal ends a `wait`, and not the step.

status=$(cat nightly.status 2>/dev/null || echo 1)
# 130: it waits to be resumed, so the job is queued again.
[ "$status" -eq 130 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$status"
