"""What a beamline calls its things: one TOML each, and the loader."""

from __future__ import annotations

if __name__ != "ptyplugin.profiles":
    raise ImportError(f"import this folder as ptyplugin.profiles, not as {__name__}")

from ptyplugin.profiles.loader import load_profile, profile_names, profile_stamp

__all__ = ["load_profile", "profile_names", "profile_stamp"]
