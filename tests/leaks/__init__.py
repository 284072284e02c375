"""T11: a hundred thousand calls of a function leak neither memory nor file descriptors."""
