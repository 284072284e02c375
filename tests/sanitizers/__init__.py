"""T11: what is compiled, built with AddressSanitizer and UndefinedBehaviorSanitizer. See ``__main__.py``."""

import os

#: Whether AddressSanitizer is below this process. It keeps what was freed, so memory that is in use says nothing.
WATCHED = "libasan" in os.environ.get("LD_PRELOAD", "")
