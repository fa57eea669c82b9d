"""ptyplugin.cli."""
