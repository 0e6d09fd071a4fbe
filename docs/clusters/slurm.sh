#!/bin/bash
# One allocation, one sweep, the same script again and again: `sbatch docs/clusters/slurm.sh`.
# The working folder lies in a file system that all nodes see; the nodes need no other common one.
#SBATCH --job-name=sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token RAY_USAGE_STATS_ENABLED=0
[ -s "$RAY_AUTH_TOKEN_PATH" ] || ray get-auth-token --generate >/dev/null
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# The driver runs on the first node, which takes trials, too. The other nodes' commands may outlive
# it, so the step ends with the first command that does.
srun --kill-on-bad-exit=1 --wait=60 \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --include-dashboard=false -- \
  keras-sweeps run --space cnn --dataset mnist --name nightly --resume auto \
  --timeout none --trials 500 --threads 4 --executor ray --ray-address "$head:6379"
status=$?
# 130: it waits to be resumed. A job that was cut short by its time limit is queued again.
[ "$status" -eq 130 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$status"
