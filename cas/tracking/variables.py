"""Environment variables by which cas tells a program where it belongs."""

from typing import Final

DIR_VARIABLE: Final = "CAS_DIR"  # the repository; a user may set it too
JOIN_VARIABLE: Final = "CAS_RUN"  # set by `cas run`: the run to continue
REPRODUCTION_VARIABLE: Final = "CAS_REPRODUCTION"  # set by `cas reproduce`: the ref to go under
ORIGINAL_VARIABLE: Final = "CAS_REPRODUCES"  # likewise: the commit that is reproduced
