"""The rules that `tests/packaging` holds the source to: its structure and its language."""
