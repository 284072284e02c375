"""T11: the extensions, built with AddressSanitizer and UndefinedBehaviorSanitizer."""

import os

#: True if this process runs with AddressSanitizer, which keeps freed memory, so memory use is
#: meaningless.
IS_SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
