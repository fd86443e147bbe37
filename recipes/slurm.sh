#!/bin/bash
# The whole loop under Slurm: stopped before the time is over, it saves its steps, is put back into the queue, and goes on.
#
# Needs: one GPU, and a run directory that every node sees. Change the lines below for your cluster.
# Run:      sbatch recipes/slurm.sh configs/qwen2.5-1.5b.yaml
# Change:   sbatch --time=08:00:00 recipes/slurm.sh configs/qwen2.5-1.5b.yaml rounds=3
# Several GPUs: accelerate launch recipes/self_instruct.py --config "$@" in place of selfinstruct run "$@"
#SBATCH --job-name=selfinstruct
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

selfinstruct run "$@" &
program=$!
stopped=""
trap 'stopped=yes; kill -TERM "$program"' TERM

wait "$program"
code=$?
if [ -n "$stopped" ]; then
    wait "$program" # the first one ended with the signal, not with the program
    code=$?
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
