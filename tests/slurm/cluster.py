"""A private SLURM cluster of four nodes on this machine, for tests: munge, MariaDB, slurmdbd, slurmctld, four slurmd.

Preemption, requeueing, arrays and accounting are promises of the real scheduler, so the tests ask the real one.
Everything lives in one short-named temporary folder (sockets, keys, database, spool, logs) and on free loopback
ports; no systemd, no special rights, nothing of an installed cluster is read or changed. Each daemon stays in the
foreground as a child of this process, is stopped by its pid, and dies with this process if that is killed.

    with SlurmCluster() as cluster:
        job = cluster.sbatch("--wrap", "hostname", "--partition=preempt")
        cluster.wait_for(job, "COMPLETED")
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.slurm.configuration import NO_ACCOUNTING, SLURM_CONF, SLURMDBD_CONF, SMALL_DATABASE

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "srun", "sacct")
T = TypeVar("T")
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass(kw_only=True)
class SlurmCluster:
    """Start with `with`; inside, `env` is the environment of a user who is logged in there."""

    num_nodes: int = 4
    cpus_per_node: int = 2
    gpus_per_node: int = 2  # in name only: empty files
    max_array_size: int = 1001
    grace_time_s: int = 2
    kill_wait_s: int = 3
    accounting: bool = True
    """False: as on clusters that have none."""
    slurm_conf: tuple[str, ...] = ()
    """More lines for slurm.conf."""
    start_timeout_s: float = 90.0

    folder: Path = field(init=False)
    env: dict[str, str] = field(init=False)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)
    _complaint: str = field(init=False, default="")

    def __enter__(self) -> SlurmCluster:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets need paths under 108 characters
        self.env = self._environment()
        try:
            self._start()
        except BaseException as error:
            if isinstance(error, Exception):
                error.add_note(self.logs())
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- what a user does --------------------------------------------------------------------------------------------

    def run(self, *command: str | Path, check: bool = True, timeout_s: float = 60.0) -> str:
        """Standard output of a command on the login node."""
        result = subprocess.run(
            [str(part) for part in command], env=self.env, capture_output=True, text=True, timeout=timeout_s
        )
        if check and result.returncode != 0:
            raise RuntimeError(f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def sbatch(self, *arguments: str | Path) -> str:
        """Submits and returns the job id (of the whole array)."""
        return self.run("sbatch", "--parsable", *arguments).strip().split(";")[0]

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says of one job or array element; empty when it is forgotten."""
        shown = self.run("scontrol", "show", "job", "--oneliner", job_id, check=False)
        return dict(re.findall(r"(\w+)=(\S*)", shown.splitlines()[0])) if shown.strip() else {}

    def job_state(self, job_id: str) -> str:
        return self.job(job_id).get("JobState", "UNKNOWN")

    def restarts(self, job_id: str) -> int:
        return int(self.job(job_id).get("Restarts", "0"))

    def wait_for(self, job_id: str, *states: str, timeout_s: float = 60.0) -> str:
        """Waits until the job, or every element of the array, is in one of the states; returns the last one's."""

        def arrived() -> str | None:
            found = re.findall(r"JobState=(\w+)", self.run("scontrol", "show", "job", job_id, check=False))
            return found[-1] if found and all(state in states for state in found) else None

        return self.wait_until(arrived, f"job {job_id} to be {' or '.join(states)}", timeout_s)

    def wait_until(self, condition: Callable[[], T | None], what: str, timeout_s: float = 60.0) -> T:
        """Polls until the condition's value is true, and returns it; otherwise fails with the cluster's logs."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_s} s for {what}\n{self.run('squeue', check=False)}\n{self.logs()}")
            self.skip_requeue_delay()
            time.sleep(0.1)
        return value

    def requeue(self, job_id: str) -> None:
        self.run("scontrol", "requeue", job_id)

    def skip_requeue_delay(self) -> None:
        """SLURM starts a requeued job no sooner than after two minutes, for which no option exists: make it now."""
        waiting = ("squeue", "--states=PENDING", "--array", "--noheader", "--format=%i %r")
        for line in self.run(*waiting, check=False).splitlines():
            job_id, reason = line.split(maxsplit=1)
            if reason == "BeginTime":
                self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now", check=False)

    def mails(self) -> list[str]:
        """The arguments of each mail that SLURM has sent."""
        path = self.folder / "mails"
        return path.read_text().splitlines() if path.exists() else []

    def cancel(self, *job_ids: str) -> None:
        self.run("scancel", *job_ids)

    def clear(self) -> None:
        """Cancels every job and waits until the nodes are free."""
        self.run("scancel", "--user", getpass.getuser())
        self.wait_until(lambda: not self.run("squeue", "--noheader").strip() and self._all_idle(), "an empty cluster")

    @contextlib.contextmanager
    def preempt(self) -> Iterator[str]:
        """Occupies all nodes with a job of partition `high`, which takes them from jobs in `preempt`, while inside."""
        options = ["--partition=high", f"--nodes={self.num_nodes}", "--exclusive", "--output=/dev/null", "--time=10"]
        job_id = self.sbatch(*options, "--wrap", "sleep 600")
        try:
            self.wait_for(job_id, "RUNNING")
            yield job_id
        finally:
            self.cancel(job_id)

    @contextlib.contextmanager
    def lost_node(self, node: str) -> Iterator[None]:
        """Kills a node's slurmd and sets it down, inside; what runs there is not ended."""
        self._kill(node)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")
        try:
            yield
        finally:
            self._spawn_node(node)  # it comes back by itself (ReturnToService=2)
            state = ("sinfo", "--noheader", f"--nodes={node}", "--format=%T")
            self.wait_until(lambda: "down" not in self.run(*state, check=False), f"{node} to come back")

    @contextlib.contextmanager
    def without_controller(self) -> Iterator[None]:
        """Inside, no program of SLURM gets an answer; jobs go on."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()  # it saves what it knows
        daemon.wait()
        try:
            yield
        finally:
            self._spawn("slurmctld", "-D", "-f", self.env["SLURM_CONF"])
            self._await("slurmctld again", lambda: self._succeeds("scontrol", "ping"))

    def kill_node(self, node: str) -> None:
        """Kills a node's slurmd for good; what runs there is not ended, and slurmctld finds out by itself."""
        self._kill(node)

    def logs(self, num_lines: int = 40) -> str:
        """The end of every daemon's log."""
        tails = []
        for path in sorted((self.folder / "log").glob("*")):
            if path.suffix == ".out" and path.with_suffix(".log").exists():
                continue
            lines = path.read_text(errors="replace").splitlines()[-num_lines:]
            tails += [f"---- {path.name}", *lines]
        return "\n".join(tails)

    # -- starting ----------------------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        return inherited | {
            "PATH": PATH,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(self.folder / "db.sock"),  # what libmariadb reads in slurmdbd
        }

    def _start(self) -> None:
        for name in ("log", "state", *self._nodes()):
            (self.folder / name).mkdir()
        self._write_files()
        user = getpass.getuser()
        log = self.folder / "log"
        self._spawn("munged", "--foreground", "--force", f"--socket={self.folder}/munge.sock",
                    f"--key-file={self.folder}/munge.key", f"--pid-file={self.folder}/munged.pid",
                    f"--log-file={log}/munge.log", f"--seed-file={self.folder}/munge.seed")  # fmt: skip
        if self.accounting:
            self._start_accounting(user)
        self._spawn("slurmctld", "-D", "-c", "-f", self.env["SLURM_CONF"])
        self._await("slurmctld", lambda: self._succeeds("scontrol", "ping"))
        for node in self._nodes():
            self._spawn_node(node)
        self._await("idle nodes", self._all_idle)
        if self.accounting:
            self._await("accounting", lambda: self._succeeds("sacct", "--allusers"))

    def _start_accounting(self, user: str) -> None:
        database = [f"--datadir={self.folder}/db", f"--user={user}"]
        self.run("mariadb-install-db", "--no-defaults", *database, "--skip-test-db", *SMALL_DATABASE)
        self._spawn("mariadbd", "--no-defaults", *database, f"--socket={self.folder}/db.sock", "--skip-networking",
                    "--skip-grant-tables", f"--pid-file={self.folder}/mariadbd.pid", *SMALL_DATABASE)  # fmt: skip
        self._await("munge and the database", lambda: all(map(self._connects, ("munge.sock", "db.sock"))))
        self._spawn("slurmdbd", "-D")
        self._await("slurmdbd", lambda: self._succeeds("sacctmgr", "--immediate", "add", "cluster", "test"))

    def _spawn_node(self, node: str) -> None:
        self._spawn("slurmd", "-D", "-N", node, name=node)

    def _write_files(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        ports = free_ports(self.num_nodes + 2)
        more = [*([] if self.accounting else NO_ACCOUNTING), *self.slurm_conf]
        values = {
            "dir": self.folder, "user": getpass.getuser(), "host": socket.gethostname().split(".")[0],
            "ctld_port": ports[0], "dbd_port": ports[1], "extra": "\n".join(more),
            "max_array_size": self.max_array_size, "grace_time_s": self.grace_time_s,
            "kill_wait_s": self.kill_wait_s,
        }  # fmt: skip
        mail = self.folder / "mail"
        mail.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/mails\n')
        mail.chmod(0o755)
        nodes = "".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus_per_node} "
            f"RealMemory=4000 Gres=gpu:{self.gpus_per_node}\n"
            for node, port in zip(self._nodes(), ports[2:], strict=True)
        )
        (self.folder / "slurm.conf").write_text(SLURM_CONF.format(**values, nodes=nodes))
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{self.gpus_per_node - 1}]\n")
        for index in range(self.gpus_per_node):
            (self.folder / f"gpu{index}").touch()
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(SLURMDBD_CONF.format(**values))
        dbd.chmod(0o600)  # slurmdbd insists

    def _nodes(self) -> list[str]:
        return [f"node{index + 1}" for index in range(self.num_nodes)]

    def _spawn(self, *command: str, name: str | None = None) -> None:
        name = name or command[0]
        with open(self.folder / "log" / f"{name}.out", "wb") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not ready():
            dead = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                ended = f", {' and '.join(dead)} ended" if dead else ""
                raise RuntimeError(f"{what} did not come up{ended}: {self._complaint}")
            time.sleep(0.1)

    def _succeeds(self, *command: str) -> bool:
        result = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        self._complaint = result.stderr.strip()
        return result.returncode == 0

    def _connects(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.folder / name)) == 0

    def _all_idle(self) -> bool:
        states = self.run("sinfo", "--noheader", "--Node", "--partition=preempt", "--format=%T", check=False)
        return states.split() == ["idle"] * self.num_nodes

    # -- stopping ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends the scheduler, then what it started, then the rest; nothing in the folder is worth a slow goodbye."""
        scheduler = [name for name in self._daemons if name == "slurmctld" or name in self._nodes()]
        for name in scheduler:
            self._kill(name)
        deadline = time.monotonic() + 20
        while leftovers := self._leftovers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {leftovers} of the cluster in {self.folder} do not end")
            for pid in leftovers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        for name in list(self._daemons):
            self._kill(name)
        shutil.rmtree(self.folder, ignore_errors=False)

    def _kill(self, name: str) -> None:
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def _leftovers(self) -> list[int]:
        """Job steps and their children, which are not our children."""
        ours = {os.getpid(), *(daemon.pid for daemon in self._daemons.values())}
        pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return [pid for pid in pids if pid not in ours and self._is_of_a_job(Path("/proc", str(pid)))]

    def _is_of_a_job(self, process: Path) -> bool:
        """slurmd's helpers work in our folder, what they start has their environment."""
        with contextlib.suppress(OSError):
            environment = (process / "environ").read_bytes()
            if bytes(self.folder) in environment and b"\0SLURM_JOB_ID=" in environment:
                return True
            return (process / "cwd").readlink().is_relative_to(self.folder)
        return False


def free_ports(num_ports: int) -> list[int]:
    """Ports on loopback below the ephemeral range, so that no outgoing connection takes one before its daemon does."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < num_ports:
            candidate = random.SystemRandom().randrange(10_000, 32_000)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("", candidate))
                ports.append(candidate)
        return ports
