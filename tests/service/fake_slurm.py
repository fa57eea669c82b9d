"""Slurm's commands without Slurm: ``fake_slurm.py COMMAND ARGUMENTS``, jobs as files in the folder FAKE_SLURM.

Of each job: its words, script and environment, its state and the seconds that it has left, which tests change. Where the file ``runs`` is
there, batch scripts are run on this machine, and srun becomes the mpiexec beside this Python. Where ``away`` is there, nothing answers;
where ``hangs`` is there, sbatch does what it should and does not come back; where ``greets`` is there, it is a site's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(os.environ["FAKE_SLURM"])


def sbatch(words: list[str]) -> None:
    """Options as --name=value, the script from stdin; the number of the job to stdout."""
    asked = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    if asked.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    if "test-only" in asked:
        return
    number = len(list(HERE.glob("*.json"))) + 1
    job = {"asked": asked, "script": sys.stdin.read(), "environment": dict(os.environ), "state": "PENDING", "left": "10:00", "pid": 0}
    token = next((Path(word) for word in job["script"].split() if "/token." in word), None)
    job["token_mode"] = oct(token.stat().st_mode & 0o777) if token else ""
    if (HERE / "runs").exists():
        with open(asked["output"].replace("%%", "%"), "ab") as said:
            running = subprocess.Popen(
                ["/bin/sh"], stdin=subprocess.PIPE, stdout=said, stderr=said, cwd=asked["chdir"], start_new_session=True
            )
        assert running.stdin
        running.stdin.write(job["script"].encode())
        running.stdin.close()
        job |= {"state": "RUNNING", "pid": running.pid}
    (HERE / f"{number}.json").write_text(json.dumps(job))
    if (HERE / "hangs").exists():
        time.sleep(60)
    if (HERE / "greets").exists():
        print("Welcome to the cluster.")
    print(number)


def srun(words: list[str]) -> None:
    """So many tasks on this machine."""
    ranks = next(word.partition("=")[2] for word in words if word.startswith("--ntasks="))
    command = words[next(place for place, word in enumerate(words) if not word.startswith("--")) :]
    mpiexec = str(Path(sys.executable).parent / "mpiexec")
    os.execv(mpiexec, [mpiexec, "-launcher", "fork", "-rmk", "user", "-n", ranks, *command])


def squeue(words: list[str]) -> None:
    """All jobs that have not ended, in the service's format; those in hidden partitions for who wants all."""
    assert {"-h", "-u"} <= set(words)
    for file, job in jobs():
        is_hidden = job["asked"].get("partition") == "hidden" and "--all" not in words
        if is_listed(job) and not is_hidden and job["state"] in os.environ.get("SQUEUE_STATES", job["state"]):
            print(f"{file.stem}|{job['state']}|{job.get('reason', 'None')}|{job['left']}|n1|{job['asked']['job-name']}")


def scancel(words: list[str]) -> None:
    """Jobs of one name."""
    name = next(word.partition("=")[2] for word in words if word.startswith("--name="))
    for file, job in jobs():
        if job["asked"]["job-name"] == name and is_listed(job):
            if job["pid"]:
                with suppress(ProcessLookupError):
                    os.killpg(job["pid"], signal.SIGTERM)
            file.write_text(json.dumps(job | {"state": "CANCELLED"}))


def scontrol(words: list[str]) -> None:
    """-o show job NUMBER."""
    job = json.loads((HERE / f"{words[-1]}.json").read_text())
    print(f"JobId={words[-1]} JobName={job['asked']['job-name']} JobState={job['state']} Reason=None ExitCode=0:0")


def jobs() -> list[tuple[Path, dict]]:
    return [(file, json.loads(file.read_text())) for file in sorted(HERE.glob("*.json"))]


def is_listed(job: dict) -> bool:
    if job["state"] not in ("PENDING", "RUNNING", "SUSPENDED"):
        return False
    try:
        return not job["pid"] or Path(f"/proc/{job['pid']}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    if (HERE / "away").exists():
        sys.exit(f"{sys.argv[1]}: error: Unable to contact slurm controller (connect failure)")
    {"sbatch": sbatch, "srun": srun, "squeue": squeue, "scancel": scancel, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:])
