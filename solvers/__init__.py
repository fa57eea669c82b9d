"""The numerics: algorithms, verbs, ranks. ``solve`` is the door; files and catalogs are somebody else's."""

if __name__ != "ptyplugin.solvers":
    raise ImportError(f"import this folder as ptyplugin.solvers, not as {__name__}")

from ptyplugin.solvers.algorithms import check_recipe
from ptyplugin.solvers.checkpoint import Checkpoint
from ptyplugin.solvers.plan import Plan
from ptyplugin.solvers.plugins import Algorithm
from ptyplugin.solvers.ranks import MpiRanks, OneRank, RankFailed, Ranks, failing_together
from ptyplugin.solvers.solve import DEFAULT, solve
from ptyplugin.solvers.solver import Solver

__all__ = [
    "DEFAULT",
    "Algorithm",
    "Checkpoint",
    "MpiRanks",
    "OneRank",
    "Plan",
    "RankFailed",
    "Ranks",
    "Solver",
    "check_recipe",
    "failing_together",
    "solve",
]
