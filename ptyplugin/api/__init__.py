"""ptyplugin.api."""
