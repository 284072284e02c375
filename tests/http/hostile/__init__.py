"""Loads by which one hostile client tries to stop or fill the server (row T16)."""
