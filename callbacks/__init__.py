"""The Bluesky side: documents -> one growing picture of the run -> Job."""

if __name__ != "ptyplugin.callbacks":
    raise ImportError(f"import this folder as ptyplugin.callbacks, not as {__name__}")
