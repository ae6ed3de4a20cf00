#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-100%25
#SBATCH --comment=hpcdata:tasks:0123
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=4
#SBATCH --exclude='node[3-4]'
#SBATCH --gpus-per-node=2
#SBATCH --job-name=cc3m
#SBATCH --mail-type=FAIL
#SBATCH --mem=1536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --open-mode=append
#SBATCH --output='/tmp/my run/logs/%A_%a_0_log.out'
#SBATCH --partition=preempt
#SBATCH --qos=low
#SBATCH --requeue
#SBATCH --signal=USR2@300
#SBATCH --time=720

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/tmp/my run/logs/%A_%a_%t_log.out' --cpus-per-task=4 --kill-on-bad-exit=0 --wait=0 /venv/bin/python -P -u -m hpcdata.cluster.task '/tmp/my run'


# teardown
code=$?
# a signal came while Python was starting: 128 + SIGUSR1, SIGUSR2, SIGTERM; see hpcdata/cluster/task.py
case $code in 138 | 140 | 143)
    id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    scontrol requeue Incomplete "${id:-$SLURM_JOB_ID}" ;;
# a crash, a hang or no memory (253): start once more, to find the record that did it; see hpcdata/work/poison.py
132 | 134 | 135 | 136 | 137 | 139 | 142 | 253)
    if ((${HPCDATA_RESTARTS:=0} < 10)); then
        export HPCDATA_RESTARTS=$((HPCDATA_RESTARTS + 1))
        exec bash "$0"
    fi ;;
esac
exit $code
