"""Tools for whole stores: copy, convert, verify, repair."""
