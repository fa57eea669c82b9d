"""ptyplugin.jobs."""
