"""Read a profile from its TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ptyplugin.model import Profile, ProfileError

_FOLDER = Path(__file__).parent


def profile_names() -> list[str]:
    """Names of the profiles that come with ptyplugin, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_profile(name_or_path: str | Path) -> Profile:
    """The profile of this name, or the one in this TOML file.

    A text without a slash and without the ending ``.toml`` is the name of a profile that comes with ptyplugin.

    Raises:
        ProfileError: there is no such profile, it is no TOML, or a key in it is wrong; the message names file and key.
    """
    path = _path_of(name_or_path)
    try:
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ProfileError(_sentence(path, error)) from error


def profile_stamp(name_or_path: str | Path) -> tuple[int, int] | None:
    """What tells one content of a profile's file from a later one; None where it cannot be looked at.

    Raises:
        ProfileError: there is no profile of this name.
    """
    try:
        found = _path_of(name_or_path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _path_of(name_or_path: str | Path) -> Path:
    if not isinstance(name_or_path, str | Path):
        raise ProfileError(
            f"{name_or_path!r} is no profile: give a name ({', '.join(profile_names())}), the path of a .toml file, or a Profile."
        )
    if isinstance(name_or_path, Path) or "/" in name_or_path or name_or_path.endswith(".toml"):
        # Whole, because a session's folder is not always what one thinks.
        return Path(name_or_path).expanduser().absolute()
    if name_or_path not in profile_names():
        raise ProfileError(
            f"there is no profile {name_or_path!r}: give one of {', '.join(profile_names())}, or the path of a .toml file of your own."
        )
    return _FOLDER / f"{name_or_path}.toml"


def _sentence(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return f"profile file {path} cannot be read ({error.strerror}): check the path and its permissions."
    if not isinstance(error, ValidationError):
        return f"profile file {path} is no TOML: {error}."
    wrong = error.errors(include_url=False)[0]
    others = error.error_count() - 1
    more = f" ({others} more wrong in this file.)" if others else ""
    return f"profile file {path}: {'.'.join(str(part) for part in wrong['loc'])}: {_advice(wrong)}{more}"


def _advice(wrong: ErrorDetails) -> str:
    if wrong["type"] == "extra_forbidden":
        return f"there is no such key; the keys here are {', '.join(_keys_beside(wrong['loc']))}."
    if wrong["type"] == "missing":
        return "this key is missing: add it."
    if wrong["type"] == "model_type":
        return f"this must be a table ([{'.'.join(str(part) for part in wrong['loc'])}] in brackets), and it is {wrong['input']!r}."
    return f"{wrong['msg'].removeprefix('Value error, ').rstrip('.')} (it is {wrong['input']!r})."


def _keys_beside(place: Sequence[int | str]) -> list[str]:
    """The keys that may stand where a wrong one stands."""
    table: type[BaseModel] = Profile
    for part in place[:-1]:
        annotation = table.model_fields[str(part)].annotation
        table = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return sorted(table.model_fields)
