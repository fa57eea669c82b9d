"""ptyplugin demo: the whole way, on a beamline that is not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ptyplugin.cli.extras import need
from ptyplugin.cli.screen import stderr


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes; an old one is added to.")] = Path("demo-out"),
    frames: Annotated[int, typer.Option(min=25, max=5000, help="Points of the scan.")] = 200,
    modes: Annotated[int, typer.Option(min=1, max=10, help="Probe modes: the beam's partial coherence.")] = 1,
    scans: Annotated[int, typer.Option(min=1, max=1000, help="How many scans, one after the other.")] = 1,
    ranks: Annotated[int | None, typer.Option(min=1, help="MPI ranks that solve.", show_default="2, or 1 on one core")] = None,
    step: Annotated[bool, typer.Option("--step", help="Step scans: each point has an event.")] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Step scans without EPICS, on devices of this process: over in seconds, no live image.")
    ] = False,
) -> None:
    """From a scan to an image in the catalog, on a beamline that is not there.

    Starts a real Tiled server and a simulated instrument behind real EPICS,
    runs a Bluesky fly scan there, reconstructs on MPI ranks while the scan
    goes on and once more afterwards, publishes, and reads everything back
    from the catalog. The picture shows the image beside the truth. Nothing
    runs on afterwards.

    Examples:
        ptyplugin demo
        ptyplugin demo --out d --frames 400 --modes 2 --step
        ptyplugin jobs list --site demo-out/site.toml     what the daemon noted
        ptyplugin demo --scans 5     and in another terminal:
        ptyplugin jobs watch --site demo-out/site.toml
    """
    need("the demo", "server", "sim", *([] if in_process else ["epics"]))
    from ptyplugin.cli.demo_beamlines import Way
    from ptyplugin.cli.demo_walk import run_demo

    ranks = ranks or min(2, os.cpu_count() or 1)
    way: Way = "in-process" if in_process else "step" if step else "fly"
    done, pictures = run_demo(out, way, frames=frames, modes=modes, ranks=ranks, scans=scans, console=stderr())
    typer.echo(f"live     {pictures}")
    typer.echo(f"picture  {done[-1].picture}")
    for one in done:
        typer.echo(f"result   run {one.uid}, scan {one.scan_id}")
        typer.echo(str(one))
