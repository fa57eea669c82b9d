"""ptyplugin.solvers.algorithms."""
