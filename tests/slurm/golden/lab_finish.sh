#!/bin/bash

# Parameters
#SBATCH --comment=hpcdata:finish:0123
#SBATCH --cpus-per-task=2
#SBATCH --dependency=afterany:4240:4241
#SBATCH --exclude='node[3-4]'
#SBATCH --job-name=hpcdata-finish
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=me@lab.org
#SBATCH --nodelist=node1
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/tmp/my run/logs/%j_0_log.out'
#SBATCH --partition=gpu,preempt
#SBATCH --requeue
#SBATCH --reservation=course
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
set -e
module load cuda/12
source '/lab/my env.sh'
export DATA=$HOME/data
set +eu

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/tmp/my run/logs/%j_%t_log.out' --mpi=none '--export=ALL,A=b c' --cpus-per-task=2 --kill-on-bad-exit=0 --wait=0 /venv/bin/python -P -u -m hpcdata.cluster.supervise '/tmp/my run'


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
