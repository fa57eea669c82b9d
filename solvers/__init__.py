"""The numerics: algorithms, verbs, ranks."""

if __name__ != "ptyplugin.solvers":
    raise ImportError(f"import this folder as ptyplugin.solvers, not as {__name__}")
