"""ptyplugin.catalog."""
