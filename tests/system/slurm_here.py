"""A real Slurm of two nodes on this machine, for one test run: own munge, own ports, own folder; nothing of it outlives the test."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ptyplugin.service.tied import tied_to_us

_COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
_PACKAGES = ("slurm-wlm", "munge")
#: Seconds to learn from the mirrors what there is, or that they are away; for an installation from them; for daemons to come up; to end.
_UPDATE_S, _INSTALL_S, _UP_S, _DOWN_S = 30, 150, 20, 5
#: Of apt-get: another installation is waited for; a mirror that does not answer is no more than a reason to skip.
_PATIENCE = (("DPkg::Lock::Timeout", "20"), ("Acquire::http::Timeout", "5"), ("Acquire::https::Timeout", "5"), ("Acquire::Retries", "0"))
_NODES = ("n1", "n2")


def why_not() -> str:
    """Why there is no Slurm to test with, after an attempt to install it; nothing if there is."""
    if os.getuid() != 0:
        return "only root can run a Slurm of its own"
    if missing := _missing():
        if shutil.which("apt-get") is None:
            return f"{missing[0]} is not installed, and there is no apt-get to install it with"
        with (Path(tempfile.gettempdir()) / "ptyplugin-apt.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = _install() if _missing() else ""
        if missing := _missing():
            return f"{missing[0]} is not installed, and apt-get cannot install it: {said or 'it is in none of its packages'}"
    return ""


def _missing() -> list[str]:
    return [command for command in _COMMANDS if _where(command) is None]


def _where(command: str) -> str | None:
    # Debian has daemons where only root looks.
    return shutil.which(command, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))


def _install() -> str:
    """The last thing that apt-get said, if it failed."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    asked = [f"-o{option}={value}" for option, value in _PATIENCE]
    for limit_s, *words in ((_UPDATE_S, "update"), (_INSTALL_S, "install", "--no-install-recommends", "--yes", *_PACKAGES)):
        try:
            done = subprocess.run(["apt-get", "-qq", *asked, *words], env=quiet, capture_output=True, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"{' '.join(words)} took longer than {limit_s} s"
        if done.returncode != 0:
            return (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
    return ""


class Cluster:
    """The daemons of a Slurm in ``folder``; its commands find it by SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, folder / "slurm.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Munge, the controller and two nodes, until all of them are idle."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.config.write_text(self._config())
        files = [f"--{name}={self.folder / f'munge.{name}'}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._run("munged", "--foreground", "--force", f"--key-file={key}", *files)
        self._until((self.folder / "munge.socket").exists)
        self.start_controller()
        for node in _NODES:
            self._run("slurmd", "-D", "-N", node)
        self._until(lambda: self.says("sinfo", "-h", "-t", "idle", "-o", "%D") == "2")

    def start_controller(self) -> None:
        """slurmctld, also again."""
        self._controller = self._run("slurmctld", "-D")

    def kill_controller(self) -> None:
        """slurmctld, at once."""
        self._controller.kill()
        self._controller.wait()

    def stop(self) -> None:
        """All that was started, and what Slurm has started for its jobs."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_DOWN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self._of_its_jobs():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def says(self, *command: str) -> str:
        """What one of Slurm's commands prints; nothing if it fails."""
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
        return done.stdout.strip() if done.returncode == 0 else ""

    def ranks(self) -> list[int]:
        """The processes of the solver's ranks that live in its jobs."""
        return [pid for pid in self._of_its_jobs() if b"ptyplugin.service.worker" in _read(pid, "cmdline") and not _is_srun(pid)]

    def _of_its_jobs(self) -> list[int]:
        ours, own = f"SLURM_CONF={self.config}".encode(), {process.pid for process in self._processes} | {os.getpid()}
        pids = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
        return [pid for pid in pids if pid not in own and ours in _read(pid, "environ").split(b"\0")]

    def _run(self, command: str, *words: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        # Also where the tests are killed, nothing stays.
        with (self.folder / f"{command}.log").open("ab") as said:
            process = subprocess.Popen(
                [*tied_to_us(), _where(command) or command, *words], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
            )
        self._processes.append(process)
        return process

    def _until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + _UP_S
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"Slurm does not come up:\n{logs}")
            time.sleep(0.05)

    def _config(self) -> str:
        host, (controller, *nodes) = socket.gethostname().partition(".")[0], _free_ports(1 + len(_NODES))
        told = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000 State=UNKNOWN"
            for name, port in zip(_NODES, nodes, strict=True)
        ]
        return _CONFIG.format(host=host, controller=controller, folder=self.folder, nodes="\n".join(told))


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A Slurm that is up."""
    # Not below a folder of pytest's: sockets have short paths, and munge wants folders that only root can write.
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptyplugin-slurm-", ignore_cleanup_errors=True)))
        made = Cluster(folder)
        stack.callback(made.stop)
        made.start()
        yield made


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _is_srun(pid: int) -> bool:
    return _read(pid, "comm").strip() == b"srun"


_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
ReturnToService=2
MinJobAge=300
KillWait=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""
