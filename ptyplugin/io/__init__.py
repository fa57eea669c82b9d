"""ptyplugin.io."""
