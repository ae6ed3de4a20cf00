"""Puts a small stand-in for `hpcdata.work.task` into the Python processes of jobs: they wait for a signal or a file.

A file `slow` beside sitecustomize.py makes Python start slowly, once: it is renamed to `slow.reached`.

`install(folder)` writes a sitecustomize.py; jobs that have the folder in PYTHONPATH then run, instead of encoding,
a task that notes in `<output_dir>/events.<process>` when it starts and stops, until `<output_dir>/finish` exists.
"""

from __future__ import annotations

from pathlib import Path

_SITECUSTOMIZE = """
import enum, os, sys, time, types
from pathlib import Path

slow = Path(__file__).with_name("slow")
if "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ and slow.exists():
    slow.rename(slow.with_name("slow.reached"))
    time.sleep(300)

class TaskOutcome(enum.Enum):
    FINISHED = "finished"
    STOPPED = "stopped"

def run_task(output_dir, stop):
    me = f"{os.environ.get('SLURM_ARRAY_TASK_ID', 'x')}.{os.environ['SLURM_PROCID']}"
    def note(text):
        with open(Path(output_dir) / f"events.{me}", "a") as events:
            events.write(text + "\\n")
    note("start")
    print("task starts", flush=True)
    while not stop.wait(0.05):
        if (Path(output_dir) / "finish").exists():
            note("finish")
            return TaskOutcome.FINISHED
    note(stop.received.name)
    return TaskOutcome.STOPPED

sys.modules["hpcdata.work.task"] = module = types.ModuleType("hpcdata.work.task")
module.TaskOutcome, module.run_task = TaskOutcome, run_task
"""


def install(folder: Path) -> str:
    """Returns what PYTHONPATH must hold."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return str(folder)


def events(output_dir: Path) -> dict[str, list[str]]:
    """What each process noted, by `element.process`."""
    return {path.name.removeprefix("events."): path.read_text().split() for path in output_dir.glob("events.*")}
