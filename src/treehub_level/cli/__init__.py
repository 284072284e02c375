"""The command line. ``treehub-level --help`` lists its commands."""

from .application import app, main

__all__ = ["app", "main"]
