"""ptyplugin sim: a beamline that is not there."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from ptyplugin.cli.extras import need
from ptyplugin.cli.sentences import one_sentence
from ptyplugin.cli.sim_session import session

app = typer.Typer(help="A beamline that is not there, behind real EPICS.", no_args_is_help=True)


def ioc(
    prefix: Annotated[str, typer.Option(help="Begin of all PV names.")] = "SIM:",
    port: Annotated[int, typer.Option(min=0, max=65000, help="The first of three ports at 127.0.0.1; 0: free ones.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where the detector writes until a client says otherwise.")] = Path("sim-data"),
    fault: Annotated[list[str] | None, typer.Option(help="What goes wrong: NAME or NAME=NUMBER; may be given again.")] = None,
    imperfection: Annotated[list[str] | None, typer.Option(help="What is not perfect: NAME=VALUE; may be given again.")] = None,
    modes: Annotated[int, typer.Option(min=1, max=10, help="Probe modes: the beam's partial coherence.")] = 1,
    photons: Annotated[float, typer.Option(min=1, max=1e12, help="Photons per frame.")] = 1e6,
    range_um: Annotated[float, typer.Option(min=1, max=200, help="Length of the sample's field, micrometres.")] = 24.0,
    seed: Annotated[int, typer.Option(min=0, help="Of sample, noise and imperfections.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready, for programs.")] = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True, help="End when standard input closes.")] = False,
) -> None:
    """Serve a simulated beamline over Channel Access and PVAccess.

    Two scan stages, a rotation, energy, an ion chamber and an area detector
    that writes real HDF5 files and sends its frames over PVAccess, at the
    loopback only. It prints what its clients need in their environment, as
    soon as they can connect, and runs until Ctrl-C.

    Examples:
        ptyplugin sim ioc --port 5264 > env.sh &        and seconds later: . ./env.sh
        ptyplugin sim ioc --imperfection jitter_m=2e-8 --imperfection beam_flicker=0.02
        ptyplugin sim ioc --fault drop_frames=10
    """
    need("the simulated beamline", "sim", "epics")
    from ptyplugin.sim.ioc import faults, imperfections
    from ptyplugin.sim.ioc.server import Settings, environment, serve

    def say(first: int) -> None:
        variables = environment(first)
        if as_json:
            typer.echo(json.dumps({"port": first, "prefix": prefix, "environment": variables}))
        else:
            typer.echo("\n".join(f"export {name}={value}" for name, value in variables.items()))

    settings = Settings(
        folder,
        prefix,
        port,
        imperfections.Imperfections.parse(imperfection or []),
        faults.parse(fault or []),
        modes=modes,
        photons=photons,
        range_m=range_um * 1e-6,
        seed=seed,
    )
    if with_parent:
        threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    serve(settings, say)


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


@app.callback()
def _group() -> None: ...


app.command("ioc")(one_sentence(ioc))
app.command("session")(one_sentence(session))
