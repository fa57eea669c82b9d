"""What the doctor says about slots under Slurm: whether their pilots would be taken, and could call the daemon."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from ptyplugin.model import PtypluginError, Site, SlurmNumbers
from ptyplugin.service.findings import Finding
from ptyplugin.service.pilot import environment_of_ranks, options
from ptyplugin.service.slurm import Slurm


def slurm_found(site: Site) -> Iterator[Finding]:
    """One finding for each slot under Slurm. Nothing is submitted."""
    for number, slot in enumerate(site.slot, start=1):
        if slot.slurm:
            yield _found(f"slot {number}", site, slot.slurm, Slurm())


def _found(about: str, site: Site, asked: SlurmNumbers, slurm: Slurm) -> Finding:
    try:
        asked_for = options(asked, asked.nodes, "ptyplugin-doctor", site.shared / "log.txt")
        slurm.would_take(asked_for, "#!/bin/sh\nexit\n", environment_of_ranks(asked))
        slurm.listed("ptyplugin-")
    except PtypluginError as error:
        return Finding(about, "wrong", str(error), "correct [slot.slurm] in the site file, or ask who looks after the cluster")
    try:
        with socket.create_server((asked.host, asked.port)) as listener:
            is_reached = not ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    except OSError as error:
        said = f"its ranks cannot call at {asked.host}, port {asked.port or 'any'} ({error})"
        return Finding(about, "wrong", said, "set host in [slot.slurm] to an address of this machine, and port to one that is free")
    said = f"Slurm would take a pilot of {asked.nodes} node(s) with {asked.ranks_per_node} rank(s) each, which calls at {asked.host}"
    if not is_reached:
        return Finding(
            about, "warning", f"{said}: from this machine only", "set host in [slot.slurm] to this machine's address, as the nodes reach it"
        )
    if site.shared_dir is None or site.results_dir is None:
        return Finding(about, "warning", said, "set shared_dir and results_dir in the site file to folders that the nodes see too")
    return Finding(about, "ok", said)
