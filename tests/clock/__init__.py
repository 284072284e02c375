"""T15: a wrong or jumping wall clock has no effect."""
