"""ptyplugin reconstruct: one scan, here and now."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ptyplugin.cli.screen import answer, busy, iteration_bar, show_warnings

if TYPE_CHECKING:
    from ptyplugin.model import JobParts, Progress, Reconstruction, Site


_Source = Annotated[str, typer.Argument(help="A CXI file; or the uid (or its first letters) or the scan id of a run in the catalog.")]
_RecipeText = Annotated[
    str | None, typer.Option(help='What to run, e.g. "DM(100) + ePIE(50)".', show_default="the profile's, or what suits most scans")
]
_ProbeModes = Annotated[int | None, typer.Option(min=1, help="Probe modes that add incoherently.", show_default="the profile's, or 1")]
_ObjectModes = Annotated[
    int | None, typer.Option(min=1, help="States of the sample that add incoherently.", show_default="the profile's, or 1")
]
_SubpixelWay = Annotated[
    Literal["none", "probe"] | None,
    typer.Option(help="Meet positions between pixels by moving the probe, or round them.", show_default="the profile's, or probe"),
]
_StartProbe = Annotated[
    Path | None, typer.Option(help="Start probe: .npy, a result file, CXI, HDF5 with 'probe'.", show_default="from the data")
]
_CropPx = Annotated[int | None, typer.Option(min=8, help="Side of the square kept around the middle of each frame.")]
_Ranks = Annotated[int, typer.Option(min=1, help="MPI ranks on this machine.")]
_Device = Annotated[
    Literal["auto", "cpu", "gpu"], typer.Option(help="What to compute on; auto takes a GPU that can be used, or says why not.")
]
_Seed = Annotated[int | None, typer.Option(min=0, help="Fixes what is random.", show_default="the profile's, or 0")]
_ProfileName = Annotated[
    str | None, typer.Option(help="How the beamline calls its things: a name or a TOML file. Needed for runs.", show_default=False)
]
_SiteFile = Annotated[
    Path | None, typer.Option(help="TOML file of this installation (catalog, data_roots).", show_default="what PTYPLUGIN_SITE names")
]
_Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Result file (HDF5).", show_default="<job key>.h5 in the site's results")
]
_Png = Annotated[Path | None, typer.Option(help="Also make a picture.", show_default=False)]
_Resolution = Annotated[
    bool, typer.Option("--resolution", help="Also reconstruct two halves of the frames, to say how finely the image resolves.")
]
_Publish = Annotated[bool, typer.Option("--publish", help="Also put the result into the site's catalog, as the daemon does.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, without progress bars.")]


def reconstruct(
    source: _Source,
    recipe: _RecipeText = None,
    probe_modes: _ProbeModes = None,
    object_modes: _ObjectModes = None,
    subpixel: _SubpixelWay = None,
    probe: _StartProbe = None,
    crop_px: _CropPx = None,
    ranks: _Ranks = 1,
    device: _Device = "auto",
    seed: _Seed = None,
    profile: _ProfileName = None,
    site: _SiteFile = None,
    output: _Output = None,
    png: _Png = None,
    resolution: _Resolution = False,
    publish: _Publish = False,
    as_json: _AsJson = False,
) -> None:
    """Reconstruct one scan, here and now.

    Examples:
        ptyplugin reconstruct scan.cxi --png scan.png
        ptyplugin reconstruct scan.cxi --recipe "DM(100) + ePIE(50)" -o scan.h5
        ptyplugin reconstruct scan.cxi --probe-modes 2 --ranks 2 --device gpu
        ptyplugin reconstruct scan.cxi --crop-px 256 --probe yesterday.h5
        ptyplugin reconstruct 1742 --profile hxn.toml --ranks 4 --json
        ptyplugin reconstruct 1742 --profile hxn.toml --publish

    The result file holds object, probe, positions, errors and how they came to
    be. The same source, recipe and options give the same job key; an existing
    --output is replaced. With --publish the file stays in the site's results,
    where the catalog reads it; what is published already is left as it is.
    """
    from ptyplugin.api import make_job, open_scan

    show_warnings()
    _check_wishes(device, publish, output)
    with busy(f"opening {source}", as_json):
        scan = open_scan(source, profile=profile, site=site)
        parts = make_job(
            scan,
            recipe,
            probe_modes=probe_modes,
            object_modes=object_modes,
            subpixel=subpixel,
            probe=probe,
            crop_px=crop_px,
            seed=seed,
            ranks=ranks,
            device=device,
        )
        if publish:
            _check_catalog(scan.site)
    begun = time.monotonic()
    result = _solve_with_halves(parts, scan.site, ranks, as_json) if resolution else _solve(parts, scan.site, ranks, as_json)
    seconds = time.monotonic() - begun
    where = output or scan.site.results / f"{parts.job.key}.h5"
    _write(result, where, png, as_json)
    _say(parts, result, seconds, where, png, _published(parts, scan.site, where, as_json) if publish else None, as_json)


def _check_wishes(device: str, publish: bool, output: Path | None) -> None:
    """Before anything is opened."""
    from ptyplugin.api import check_device

    check_device(device)
    if publish and output is not None:
        raise typer.BadParameter("--publish keeps the result file in the site's results, where the catalog reads it: leave out --output.")


def _solve_with_halves(parts: JobParts, site: Site, ranks: int, as_json: bool) -> Reconstruction:
    """The result, and how finely it resolves: told by two halves of the frames."""
    from ptyplugin.api import half_sets, ring_correlation

    result = _solve(parts, site, ranks, as_json)
    first, second = (_solve(half, site, ranks, as_json) for half in half_sets(parts))
    return result.with_resolution(ring_correlation(first, second))


def _write(result: Reconstruction, where: Path, png: Path | None, as_json: bool) -> None:
    from ptyplugin.io import write_result

    with busy("writing", as_json):
        write_result(where, result)
        if png is not None:
            from ptyplugin.io.picture import save_png

            save_png(result, png)


def _solve(parts: JobParts, site: Site, ranks: int, as_json: bool) -> Reconstruction:
    from ptyplugin.api import folder_of, solve_job
    from ptyplugin.model import Recipe

    with iteration_bar(Recipe.parse(parts.job.recipe).iterations, as_json) as on_progress:
        if ranks > 1:
            return _solve_on_ranks(parts, site, ranks, on_progress)
        with folder_of(parts) as folder:
            result = solve_job(parts.job, folder, site, on_progress=on_progress)
    assert result is not None, "one rank has the result"
    return result


def _solve_on_ranks(parts: JobParts, site: Site, ranks: int, on_progress: Callable[[Progress], None]) -> Reconstruction:
    """As the daemon does it: the job in a folder, a group of MPI ranks on it, a result file back."""
    from ptyplugin.api import write_parts
    from ptyplugin.io import read_result
    from ptyplugin.model import PtypluginError
    from ptyplugin.service import Mpiexec, Wish
    from ptyplugin.service.solving import Task

    folder = Path(tempfile.mkdtemp(prefix="ptyplugin-")) / parts.job.key
    folder.mkdir()
    write_parts(parts, folder)
    task, keep = Task(folder, site.model_copy(update={"results_dir": folder})), False
    try:
        with Mpiexec(folder, ranks) as group:
            return read_result(group.run(task, on_progress, lambda: Wish.GO_ON))
    except PtypluginError as error:
        keep = str(folder) in str(error)
        raise
    finally:
        if not keep:
            shutil.rmtree(folder.parent)


def _check_catalog(site: Site) -> None:
    """Before the work, not after it: a catalog that is not there or refuses the key is told."""
    from ptyplugin.api.connections import client_of

    client_of(site)


def _published(parts: JobParts, site: Site, result: Path, as_json: bool) -> str:
    """Put the result into the catalog; its path there."""
    from ptyplugin.api.connections import client_of
    from ptyplugin.catalog import publish
    from ptyplugin.model import CatalogError

    try:
        with busy("publishing", as_json):
            node = publish(client_of(site), site, result, parts.job.key)
    except CatalogError as error:
        raise CatalogError(f"{error} The result is in {result}; the same command publishes it when the catalog is there again.") from error
    # Of what was made below the root just now, the first part is empty.
    return "/".join(filter(None, node.path_parts))


def _say(
    parts: JobParts, result: Reconstruction, seconds: float, output: Path, png: Path | None, published: str | None, as_json: bool
) -> None:
    frames, iterations = len(result.positions_m), len(result.progress)
    if as_json:
        answer(
            {
                "key": parts.job.key,
                "frames": frames,
                "iterations": iterations,
                "recipe": parts.job.recipe,
                "seconds": round(seconds, 3),
                "quality": result.quality,
                "verdict": None if result.verdict is None else asdict(result.verdict),
                "object_pixel_m": list(result.geometry.object_pixel_m),
                "notes": result.provenance["notes"],
                "device": result.provenance["device"],
                "output": str(output),
                "png": None if png is None else str(png),
                "published": published,
            }
        )
        return
    for note in result.provenance["notes"]:
        typer.echo(note)
    error = result.quality.get("error")
    said = "" if error is None else f"error {error:.4g} after "
    typer.echo(
        f"{frames} frames, {said}{iterations} iterations in {seconds:.1f} s, object pixel {result.geometry.object_pixel_m[0] * 1e9:.4g} nm"
    )
    if result.frc is not None:
        typer.echo(f"resolves {result.frc.resolution_m * 1e9:.3g} nm (half period, half-bit threshold)")
    if result.verdict is not None:
        typer.echo(f"verdict  {result.verdict.word}")
        for reason in result.verdict.reasons:
            typer.echo(f"         {reason}")
    typer.echo(f"device   {result.provenance['device']}")
    typer.echo(f"result   {output}")
    if png is not None:
        typer.echo(f"picture  {png}")
    if published is not None:
        typer.echo(f"catalog  {published}")
