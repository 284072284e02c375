"""T12: closing while everything else goes on, cancelling at every await, forking. See ``__main__.py``."""
