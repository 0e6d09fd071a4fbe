#!/bin/bash
# One allocation, one sweep, the same script again and again: `sbatch docs/clusters/slurm.sh`.
# The working folder and the token's lie in file systems that all nodes see.
#SBATCH --job-name=sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
set -u
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
unset RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH # The token is in ~/.ray/auth_token, where Ray looks itself.
ray get-auth-token --generate >/dev/null || exit 1
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Five minutes before its time ends, the job has the sweep stop, to be resumed. It tells the sweep
# alone: a signal to all processes of the step would end Ray with it.
ending=
trap 'ending=yes' TERM

# The driver runs on the first node, which takes trials, too. What the sweep ends with is written
# down: srun's own status is that of all nodes.
rm -f nightly.status
srun --no-kill --kill-on-bad-exit=0 --wait=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" -- \
  bash -c 'keras-sweeps run "$@"; status=$?; echo "$status" >nightly.status; exit "$status"' sweep \
  --space cnn --dataset mnist --name nightly --resume auto --timeout none --trials 500 --threads 4 \
  --executor ray --ray-address "$head:6379" &
step=$!
while kill -0 "$step" 2>/dev/null && [ ! -s nightly.status ]; do
  if [ -n "$ending" ]; then keras-sweeps stop nightly; fi # Until it hears: it may not run yet.
  sleep 5 &
  wait $!
done
# The other nodes' commands would wait for a head that is gone.
kill "$step" 2>/dev/null
wait "$step"

# 130: it waits to be resumed, so the job is queued again. So it is where a sweep that has begun was
# lost with its node, but not without end. A file `nightly.done` ends the row of jobs.
status=$(cat nightly.status 2>/dev/null || { [ -d .sweeps/sweeps/nightly ] && echo 130; })
if [ "${status:-1}" -eq 130 ] && [ ! -e nightly.done ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "${status:-1}"
