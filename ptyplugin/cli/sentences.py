"""Whatever goes wrong, the user reads one sentence."""

from __future__ import annotations

import functools
import tempfile
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import ParamSpec

import typer

from ptyplugin.cli import INTERRUPTED
from ptyplugin.cli.screen import stderr

FAILED = 1

_Arguments = ParamSpec("_Arguments")


def one_sentence(command: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """The same command, whose errors become one sentence on stderr and an exit code; the traceback of the unexpected goes to a file."""

    @functools.wraps(command)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            # Said by ptyplugin.cli.main, to which it may come from outside of a command too.
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            say(_sentence(error))
            raise typer.Exit(FAILED) from error

    return run


def say(sentence: str) -> None:
    """A sentence of ours on stderr."""
    from ptyplugin.model.redaction import redacted

    stderr().print(f"[bold red]ptyplugin:[/bold red] {_plain(redacted(sentence))}", soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _sentence(error: Exception) -> str:
    # Late, so that the help is quick.
    from ptyplugin.model import PtypluginError

    if isinstance(error, PtypluginError):
        return str(error)
    reason = " ".join(str(error).split()) or "no reason given"
    return f"this should not have happened ({type(error).__name__}: {reason}): please report it with {_keep_traceback(error)}."


def _keep_traceback(error: Exception) -> Path:
    """Write the traceback to a file under the user's folder, else under the temporary one."""
    name = f"error-{datetime.now():%Y%m%d-%H%M%S-%f}.log"
    from ptyplugin.model.redaction import redacted

    text = redacted("".join(traceback.format_exception(error)))
    try:
        path = Path.home() / ".local" / "share" / "ptyplugin" / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="ptyplugin-")) / name
        path.write_text(text, encoding="utf-8")
    return path
