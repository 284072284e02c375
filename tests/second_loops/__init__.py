"""T18: a level opened in one event loop and used in others. See ``__main__.py``."""
