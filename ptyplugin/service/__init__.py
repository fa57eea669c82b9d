"""ptyplugin.service."""
