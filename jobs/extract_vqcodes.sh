#!/bin/bash
# Codes for Liquid on all GPUs of this machine, or on a SLURM array, and then its Hugging Face folder. Say in the
# environment what is where, or edit it here. The same line again goes on.
#
#   INPUT_PAIR=pairs.jsonl TEMP_PATH=temp SAVE_PATH=out VQGAN_PATH=vqgan.ckpt bash jobs/extract_vqcodes.sh
#   ARRAY=0-99%25 INPUT_PAIR=... bash jobs/extract_vqcodes.sh cluster.partition=gpu
#
# With ARRAY it submits the array and returns. When `hpcdata status $TEMP_PATH` says that all is done, type it again.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"
    exit 0
fi
INPUT_PAIR=${INPUT_PAIR:?is not set: JSON lines with image_path and text_prompt}
TEMP_PATH=${TEMP_PATH:?is not set: the folder of the run}
SAVE_PATH=${SAVE_PATH:?is not set: the folder to make}
VQGAN_PATH=${VQGAN_PATH:?is not set: vqgan.ckpt, or the folder that holds it}
NUM_GPUS=${NUM_GPUS:-$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)}

jobs=$(dirname "$(readlink -f "$0")")
python=${HPCDATA_PYTHON:-$(command -v python3 || command -v python)}
where=(--num_processes "$((NUM_GPUS > 1 ? NUM_GPUS : 1))")
is_last=true
if "$python" -m hpcdata.status "$TEMP_PATH" >/dev/null 2>&1; then # 0: all shards are there
    where=()                                                      # nothing is left to do but to compare the inputs
elif [[ -n ${ARRAY:-} ]]; then
    where=(cluster=slurm "cluster.array=$ARRAY" cluster.gpus_per_node=1)
    is_last=false
fi
"$python" "$jobs/convert_imagepair_cc512.py" --input_pair "$INPUT_PAIR" --temp_path "$TEMP_PATH" \
    --save_path "$SAVE_PATH" --vqgan_path "$VQGAN_PATH" ${where[@]+"${where[@]}"} "$@"
if $is_last; then
    "$python" "$jobs/packing_imagepairs.py" --temp_path "$TEMP_PATH" --save_path "$SAVE_PATH"
fi
