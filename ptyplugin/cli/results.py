"""ptyplugin results: what is in the catalog."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ptyplugin.cli.screen import answer, busy, in_brief, recipe_in_brief, show_table, show_warnings, stderr, when

_FIELDS = ("scan_uid", "scan_id", "source", "beamline", "purpose", "state", "recipe", "quality", "verdict", "verdict_reasons", "notes")
#: What the catalog calls live is a job that runs.
_STATES = {"live": "runs"}
_HEADS = ("time", "scan", "run", "image", "error", "verdict", "job", "recipe")


def results(
    uid: Annotated[str | None, typer.Option(help="Of the run with this uid.", show_default=False)] = None,
    scan_id: Annotated[int | None, typer.Option(help="Of the runs with this scan id.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(help='Published since, local time: "2026-01-31" or "2026-01-31T18:00".', show_default=False)
    ] = None,
    verdict: Annotated[
        Literal["good", "doubtful", "failed"] | None, typer.Option(help="Those with this verdict.", show_default=False)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Also live images that the final result of their run has replaced.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest ones.")] = 50,
    site: Annotated[Path | None, typer.Option(help="TOML file of this installation.", show_default="what PTYPLUGIN_SITE names")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List reconstructions in the catalog, the newest first.

    Of a scan these are its final results; as long as there is none, or if its
    job failed, what was seen live.

    Examples:
        ptyplugin results --since 2026-01-31
        ptyplugin results --scan-id 1742 --live
        ptyplugin results --verdict good --limit 5 --json

    In the table keys and uids are short, and a recipe is without its options (…);
    --json has all of them.

    In Python: ptyplugin.results(run)[0].plot()
    """
    from ptyplugin.api import results as find

    show_warnings()
    with busy("asking the catalog", as_json):
        query = {"scan_uid": uid, "scan_id": scan_id, "since": since, "verdict": verdict, "limit": limit, "live": live}
        found = [_record(node) for node in find(site=site, **query)]
    if as_json:
        answer(found)
    elif found:
        several = len({one["beamline"] for one in found}) > 1
        heads = ("beamline", *_HEADS) if several else _HEADS
        show_table(heads, [([one["beamline"]] * several + _row(one), None) for one in found])
    else:
        stderr().print("no results found.")


def _record(node: Any) -> dict[str, Any]:
    metadata = node.metadata
    published = datetime.fromtimestamp(metadata["time"]).astimezone().isoformat(timespec="seconds")
    return {"key": metadata["job"], "time": published, **{name: _plain(metadata.get(name)) for name in _FIELDS}, "uri": str(node.uri)}


def _plain(value: Any) -> Any:
    """Tiled's metadata are read-only dicts and lists of its own."""
    if hasattr(value, "items"):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _row(one: dict[str, Any]) -> list[str]:
    error = (one["quality"] or {}).get("error")
    return [
        when(datetime.fromisoformat(one["time"]).timestamp()),
        "-" if one["scan_id"] is None else str(one["scan_id"]),
        in_brief(one["scan_uid"]),
        one["purpose"] if one["state"] == "published" else f"{one['purpose']}, {_STATES.get(one['state'], one['state'])}",
        "-" if error is None else f"{error:.3g}",
        one["verdict"] or "-",
        in_brief(one["key"]),
        recipe_in_brief(one["recipe"]),
    ]
