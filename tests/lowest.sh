#!/usr/bin/env bash
# Runs a choice of tests with the lowest versions that setup.cfg allows:   bash tests/lowest.sh [pytest arguments]
#
# They are laid over the virtual environment that is active: what they do not name is taken from there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${VIRTUAL_ENV:?activate the environment that tests/run.sh has made}/bin/python
over=$(mktemp -d)
trap 'rm -rf "$over"' EXIT
"$python" -m venv --without-pip "$over"
own=$("$over/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' >"$own/zz-below.pth"
if ! "$python" -m pip --python "$over/bin/python" install --quiet --disable-pip-version-check -r constraints-lowest.txt; then
    echo "the lowest versions cannot be had here, and are not tried" >&2
    exit 0
fi

tests=(tests/media/test_pixels.py tests/media/test_jpeg.py tests/sources/test_documents.py tests/sources/test_records.py
    tests/encoders/text/test_tokenizer.py tests/dataset/test_dataset.py tests/formats tests/config/test_config.py
    tests/slurm/test_sbatch_text.py tests/test_kept_bytes.py)
[[ $# -gt 0 ]] || set -- "${tests[@]}"
PYTHONPATH=$PWD "$over/bin/python" -m pytest -n logical --maxprocesses 8 --dist loadfile -q -m "not slow and not slurm" "$@"
