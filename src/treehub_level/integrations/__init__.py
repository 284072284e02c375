"""Stores for other libraries, one module each. A module imports its library."""
