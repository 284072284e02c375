"""The engine: one open store, its mode, its change log and who may use it. Both façades stand on it."""
