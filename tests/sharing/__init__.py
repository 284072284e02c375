"""Processes that share one store: run as ``python -m tests.sharing.writers``."""
