"""T17: interrupts at any bytecode (Ctrl-C), over each backend and API. See ``__main__.py``."""
