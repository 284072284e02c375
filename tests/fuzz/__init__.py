"""T10: hostile input. A harness for each decoder, inputs by atheris or by a seeded mutator: see ``__main__.py``."""
