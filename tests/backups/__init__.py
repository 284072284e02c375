"""Backups, and stores restored from them."""
