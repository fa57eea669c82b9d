"""ptyplugin sim session: IPython at a beamline that is not there."""

from __future__ import annotations

import atexit
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptyplugin.cli.extras import need
from ptyplugin.cli.screen import busy, can_redraw, stderr
from ptyplugin.cli.sim_site import SITE_FILE, WARMING, own_site, variables, why_cold

if TYPE_CHECKING:
    from ptyplugin.model import Site

#: What the daemon says meanwhile.
LOG_FILE = "serve.log"
#: How long the daemon may take to put a job down, seconds.
_STOP_S = 40.0
_WELCOME = """\
A beamline that is not there. RE, catalog, detector, y, x, theta, mono, ion_chamber are here, and so are plans:

{plans}
    ptyplugin.live()            the image, while it is reconstructed
    ptyplugin.results()[0]      the newest one in the catalog; .plot() shows it

In another terminal: ptyplugin jobs watch --site {site}
"""
_PLANS = {
    "ophyd-async": "    RE(ptycho_fly())            a fly scan; RE(ptycho_grid()), RE(ptycho_spiral()) are step scans",
    "ophyd": "    RE(ptycho_grid())           a step scan; RE(ptycho_spiral()) is another one",
}


def session(
    folder: Annotated[Path, typer.Option(help="Folder for frames, catalog and results; an old one is added to.")] = Path("sim-session"),
    ranks: Annotated[int, typer.Option(min=1, help="MPI ranks that solve.")] = 1,
    ophyd: Annotated[bool, typer.Option("--ophyd", help="Devices of ophyd in place of ophyd-async; they have no fly scan.")] = False,
    command: Annotated[str | None, typer.Option("--command", "-c", help="Run this Python and end, in place of a prompt.")] = None,
) -> None:
    """Open IPython at a simulated beamline, with everything that a real one has.

    Starts an EPICS IOC, a Tiled server and the reconstruction service, all at
    the loopback, and then IPython the way a beamline's profile looks:
    RunEngine, devices over Channel Access, catalog, plans, and ptyplugin's
    own startup file. All of it ends with the session; the files stay.

    Examples:
        ptyplugin sim session
        ptyplugin sim session -c "RE(ptycho_grid(points=36))"
    """
    need("the session", "server", "sim", "epics")
    from IPython import start_ipython
    from traitlets.config import Config

    from ptyplugin.sim import ioc

    folder, say = folder.absolute(), stderr().print
    with ExitStack() as stack:
        say("starting the catalog (a Tiled server) ...")
        site = stack.enter_context(own_site(folder, ranks))
        say("starting the beamline (an EPICS IOC) ...")
        served = stack.enter_context(ioc.running(folder / "data"))
        stack.enter_context(variables(**served.environment, **_said(folder, site, served.prefix, ophyd)))
        say("starting the reconstruction service ...")
        stack.callback(_say_what_waits, site)
        service = stack.enter_context(_service(folder))
        config = Config()
        config.InteractiveShellApp.exec_files = _startup_files()
        config.TerminalInteractiveShell.banner2 = _WELCOME.format(site=folder / SITE_FILE, plans=_PLANS[_devices(ophyd)])
        if not can_redraw():
            say(f"{WARMING} ...")
        with busy(WARMING):
            trouble = why_cold(lambda: _warmth(site, service, folder / LOG_FILE))
        if trouble:
            say(trouble, soft_wrap=True, markup=False)
        # Ended after the clients of EPICS, which would complain of an IOC that is gone.
        atexit.register(stack.pop_all().close)
    start_ipython(argv=[] if command is None else ["-c", command], config=config)


def _devices(ophyd: bool) -> str:
    return "ophyd" if ophyd else "ophyd-async"


def _said(folder: Path, site: Site, prefix: str, ophyd: bool) -> dict[str, str]:
    """What the startup files find in the environment."""
    return {
        "PTYPLUGIN_SITE": str(folder / SITE_FILE),
        "PTYPLUGIN_PROFILE": "sim_epics,sim_fly",
        "OPHYD_CONTROL_LAYER": "any",
        "PTYPLUGIN_SIM_DEVICES": _devices(ophyd),
        "PTYPLUGIN_SIM_PREFIX": prefix,
        "PTYPLUGIN_SIM_FOLDER": str(folder / "data"),
        "TILED_URI": str(site.tiled_uri),
    }


def _startup_files() -> list[str]:
    """Those of the beamline and the one that real beamlines copy, in the order of their numbers."""
    import ptyplugin.profiles
    import ptyplugin.sim

    folders = [Path(str(package.__file__)).parent / "startup" for package in (ptyplugin.sim, ptyplugin.profiles)]
    return [str(file) for file in sorted((file for folder in folders for file in folder.glob("[0-9]*.py")), key=lambda file: file.name)]


def _say_what_waits(site: Site) -> None:
    """After the service has ended: jobs that are not done."""
    from ptyplugin.jobs import open_read_only
    from ptyplugin.model import LedgerError

    try:
        with open_read_only(site.ledger) as ledger:
            waiting = ledger.counts().get("queued", 0)
    except LedgerError:
        return  # none was there
    if waiting:
        said = f"{waiting} reconstruction(s) were not done: they go on with the next session in this folder."
        stderr().print(said, soft_wrap=True, markup=False)


def _warmth(site: Site, service: subprocess.Popen[bytes], log: Path) -> tuple[bool, str]:
    """Whether the service has warm ranks, and why it will not have any."""
    from ptyplugin.cli.service_view import service_of
    from ptyplugin.model import LedgerError

    if service.poll() is not None:
        return False, f"the reconstruction service has ended; its log is {log}. Jobs wait until there is one: ptyplugin serve."
    try:
        view = service_of(site)
        slots = view.slots() if view else []
    except LedgerError:
        return False, ""  # it has much to do: it is asked again
    trouble = next((str(slot["sentence"]) for slot in slots if not slot["ok"]), "")
    # One that goes on with what an earlier session left is not warmed up before it.
    return bool(slots) and all(slot["ready"] or slot.get("job") for slot in slots), trouble


@contextmanager
def _service(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``ptyplugin serve`` for the site in this folder, ended with the block, and when this process ends in any way."""
    from ptyplugin.model.own_python import own_python
    from ptyplugin.service.tied import tied_to_us

    command = [*tied_to_us(), *own_python("ptyplugin", "serve", "--site", folder / SITE_FILE)]
    with (folder / LOG_FILE).open("ab") as log:
        # In a session of its own: a Ctrl-C at the prompt is for the RunEngine.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
