"""ptyplugin results: what is in the catalog."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ptyplugin.cli.screen import answer, busy, show_table, show_warnings, stderr

_FIELDS = ("scan_uid", "scan_id", "beamline", "purpose", "state", "recipe", "quality", "verdict", "verdict_reasons", "notes")
_HEADS = ("published", "scan", "run", "beamline", "error", "verdict", "job", "recipe")


def results(
    uid: Annotated[str | None, typer.Option(help="Of the run with this uid.", show_default=False)] = None,
    scan_id: Annotated[int | None, typer.Option(help="Of the runs with this scan id.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(help='Published since, local time: "2026-01-31" or "2026-01-31T18:00".', show_default=False)
    ] = None,
    verdict: Annotated[
        Literal["good", "doubtful", "failed"] | None, typer.Option(help="Those with this verdict.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest ones.")] = 50,
    site: Annotated[Path | None, typer.Option(help="TOML file of this installation.", show_default="what PTYPLUGIN_SITE names")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List reconstructions in the catalog, the newest first.

    Examples:
        ptyplugin results --since 2026-01-31
        ptyplugin results --scan-id 1742 --json
        ptyplugin results --verdict good --limit 5

    In Python: ptyplugin.results(run)[0].plot()
    """
    from ptyplugin.api import results as find

    show_warnings()
    with busy("asking the catalog", as_json):
        found = [_record(node) for node in find(site=site, scan_uid=uid, scan_id=scan_id, since=since, verdict=verdict, limit=limit)]
    if as_json:
        answer(found)
    elif found:
        show_table(_HEADS, [(_row(one), None) for one in found])
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
        one["time"][:16].replace("T", " "),
        "-" if one["scan_id"] is None else str(one["scan_id"]),
        (one["scan_uid"] or "-")[:8],
        one["beamline"],
        one["state"] if error is None else f"{error:.4g}",
        one["verdict"] or "-",
        one["key"],
        one["recipe"],
    ]
