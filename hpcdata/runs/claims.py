"""Claims: advisory leases that keep array tasks from working on the same shard.

A claim is a file `claims/<name>`, created exclusively, touched by a heartbeat thread, removed when released. It is
taken over when its owner is known to be dead (same machine and the process is gone; same SLURM task, restarted) or
when it has had no heartbeat for `timeout_s` (its owner's or the observer's, whichever is longer). Ages are differences
of two times of the shared file system, so that hosts' clocks do not matter. A heartbeat that is as far ahead is none
either: that clock was set back, and who is alive beats again by the new one.

Claims only save work. If one is lost or taken over wrongly, two processes encode the same shard, and the commit
in `hpcdata/shards/sealing.py` lets only one of them publish.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import files, sealed
from hpcdata.base.reads import naming

log = logging.getLogger(__name__)

HEARTBEATS_PER_TIMEOUT = 6


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a claim: enough to tell that it is dead without waiting."""

    attempt: str
    host: str
    machine: str
    """Boot and pid namespace: processes with the same value can look each other up by pid."""
    pid: int
    pid_started: str
    slurm_task: str | None
    """`job_task_process`, the same for all restarts of one array element."""
    slurm_restart: int
    timeout_s: float = 0.0
    """How long it may be silent, as it beats in proportion to it."""

    @classmethod
    def of_this_process(cls, attempt: str) -> Owner:
        return cls(
            attempt=attempt,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            pid_started=_pid_started(os.getpid()),
            slurm_task=_slurm_task(),
            slurm_restart=int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0),
        )

    def is_known_alive(self) -> bool:
        return self.machine == _machine() and _pid_started(self.pid) == self.pid_started

    def is_known_dead(self, observer: Owner) -> bool:
        if self.machine == observer.machine:
            return _pid_started(self.pid) != self.pid_started
        same_task = self.slurm_task is not None and self.slurm_task == observer.slurm_task
        return same_task and self.slurm_restart < observer.slurm_restart


class Claims:
    """The claims of one process on the names of one run. A context manager: leaving it releases all."""

    def __init__(self, folder: Path, owner: Owner, *, timeout_s: float) -> None:
        self._folder = folder
        self._owner = dataclasses.replace(owner, timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._held: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="claims-heartbeat", daemon=True)
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for name in list(self._held):
            self.release(name)

    def try_claim(self, name: str) -> bool:
        """True when the claim is ours now, free or taken over from a dead owner."""
        if self._create(name):
            return True
        holder = self._holder(name)
        if holder is not None and not self._is_dead(name, holder):
            return False
        return self._take_over(name, holder)

    def release(self, name: str) -> None:
        self._held.discard(name)
        if self.holds(name):
            (self._folder / name).unlink(missing_ok=True)
            for aside in self._folder.glob(f".{name}.*"):  # of processes killed while they took it over
                aside.unlink(missing_ok=True)

    def release_dead(self) -> None:
        """Removes all claims of dead owners: once no shard is open, nobody else would take them over."""
        names = self.list_names()
        for name in names - self.find_alive(names).keys():
            if self.try_claim(name):
                self.release(name)

    def holds(self, name: str) -> bool:
        """False once another attempt has taken the claim over."""
        holder = self._holder(name)
        return holder is not None and holder.attempt == self._owner.attempt

    def is_alive_elsewhere(self, name: str, since: float | None) -> bool:
        """True when the holder is surely at work: a live process of this machine, or a heartbeat after `since`."""
        holder = self._holder(name)
        if holder is None:
            return False
        return holder.is_known_alive() or (since is not None and self.heartbeat(name) not in (None, since))

    def list_names(self) -> set[str]:
        """Names with a claim, dead or alive, from one listing."""
        with contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(self._folder) if not name.startswith(".")}
        return set()

    def find_alive(self, names: Iterable[str]) -> dict[str, Owner | None]:
        """Which of the names `try_claim` would not take over, with their owners (None: it is being written)."""
        names = list(names)
        now = self._file_system_now() if names else 0.0
        alive: dict[str, Owner | None] = {}
        for name in names:
            holder = self._holder(name)
            if holder is None:
                is_alive = self.heartbeat(name) is not None and not self._is_abandoned(name, now)
            else:
                is_alive = not self._is_dead(name, holder, now)
            if is_alive:
                alive[name] = holder
        return alive

    def beat(self) -> None:
        """One heartbeat for every claim that is still ours; the thread of a `with` block does it by itself."""
        for name in list(self._held):
            with contextlib.suppress(OSError):
                if self.holds(name):
                    os.utime(self._folder / name)

    def heartbeat(self, name: str) -> float | None:
        """File system time of the last heartbeat, None for no claim."""
        try:
            return (self._folder / name).stat().st_mtime
        except FileNotFoundError:
            return None

    def _create(self, name: str) -> bool:
        try:
            descriptor = os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        path = self._folder / name
        try:
            with naming(path):
                files.write_all(descriptor, sealed.to_json(dataclasses.asdict(self._owner)))
        except OSError:
            path.unlink(missing_ok=True)  # nobody could tell whose it is
            raise
        finally:
            os.close(descriptor)
        self._held.add(name)
        return True

    def _holder(self, name: str) -> Owner | None:
        return _read_owner(self._folder / name)

    def _is_dead(self, name: str, holder: Owner, now: float | None = None) -> bool:
        if holder.is_known_dead(self._owner):
            return True
        beat = self.heartbeat(name)
        timeout_s = max(self._timeout_s, holder.timeout_s)
        return beat is not None and abs((now or self._file_system_now()) - beat) > timeout_s

    def _take_over(self, name: str, holder: Owner | None) -> bool:
        """Moves the dead claim aside (only one process can), checks that it is the one that was judged, makes ours."""
        if holder is None and not self._is_abandoned(name):
            return False
        aside = self._folder / f".{name}.{self._owner.attempt}"
        try:
            os.rename(self._folder / name, aside)
        except FileNotFoundError:
            return self._create(name)
        moved = _read_owner(aside)
        if moved is not None and (holder is None or moved.attempt != holder.attempt):
            with contextlib.suppress(OSError):  # somebody's fresh claim: put it back unless a newer one is there
                os.link(aside, self._folder / name)
            aside.unlink(missing_ok=True)
            return False
        aside.unlink(missing_ok=True)
        log.info("takes over the claim %s of %s", name, holder.attempt if holder else "an unreadable owner")
        return self._create(name)

    def _is_abandoned(self, name: str, now: float | None = None) -> bool:
        """For claims without readable content: their maker died between create and write, or is about to write."""
        beat = self.heartbeat(name)
        return beat is not None and abs((now or self._file_system_now()) - beat) > min(self._timeout_s, 10.0)

    def _file_system_now(self) -> float:
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".now.") as file:
                return os.fstat(file.fileno()).st_mtime
        except OSError:  # an observer without write access
            return time.time()

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._timeout_s / HEARTBEATS_PER_TIMEOUT):
            self.beat()


def _read_owner(path: Path) -> Owner | None:
    try:
        return Owner(**sealed.read_json(path))
    except (OSError, ValueError, TypeError):
        return None


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()}/unknown-{os.getpid()}"


def _pid_started(pid: int) -> str:
    """The kernel's start time of a process, empty when there is none (a zombie does not count as one)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _slurm_task() -> str | None:
    job = os.environ.get("SLURM_JOB_ID")
    return None if job is None else f"{job}_{os.environ.get('SLURM_PROCID', '0')}"
