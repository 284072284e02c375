"""T10: fuzzing with hostile input.

Each decoder has a harness. Inputs come from atheris or from a seeded mutator: see ``__main__.py``.
"""
