"""T11: what is compiled, built with AddressSanitizer and UndefinedBehaviorSanitizer. See ``__main__.py``."""
