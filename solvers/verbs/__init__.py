"""ptyplugin.solvers.verbs."""
