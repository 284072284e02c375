"""T17: interrupts at any bytecode (Ctrl-C), over each backend and both APIs. See ``__main__.py``."""
