"""Verbs on a GPU: one ``.cu`` file per verb, with its equation and shapes on top, compiled when first used (decision record 0007)."""
