"""Scripts of the folder of benchmark problems beside the checkout."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def script(shared: Path, name: str) -> Any:
    """``shared/bench/<name>.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, shared / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
