"""The numerics: algorithms, verbs, ranks. ``solve`` is the door; files and catalogs are somebody else's."""

if __name__ != "ptyplugin.solvers":
    raise ImportError(f"import this folder as ptyplugin.solvers, not as {__name__}")

from ptyplugin.solvers.algorithms import check_recipe
from ptyplugin.solvers.ranks import MpiRanks, OneRank, RankFailed, Ranks, failing_together
from ptyplugin.solvers.solve import DEFAULT, solve

__all__ = ["DEFAULT", "MpiRanks", "OneRank", "RankFailed", "Ranks", "check_recipe", "failing_together", "solve"]
