"""What a beamline calls its things: one TOML each, and the loader."""

if __name__ != "ptyplugin.profiles":
    raise ImportError(f"import this folder as ptyplugin.profiles, not as {__name__}")
