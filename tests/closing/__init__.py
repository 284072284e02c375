"""T12: closing under load, cancelling at every await, forking. See ``__main__.py``."""
