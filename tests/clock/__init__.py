"""The clock on the wall is wrong, and goes wrong while it runs (T15): nothing may come of it."""
