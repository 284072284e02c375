"""T11: what is called a hundred thousand times takes no more memory than before, and leaves no handle open."""
