"""Environment variables by which cas tells a program where it belongs."""

from typing import Final

DIR_VARIABLE: Final = "CAS_DIR"  # the repository; a user may set it too
JOIN_VARIABLE: Final = "CAS_RUN"  # set by `cas run`: the run to continue
REPRODUCTION_VARIABLE: Final = "CAS_REPRODUCTION"  # set by `cas reproduce`: the ref to go under
ORIGINAL_VARIABLE: Final = "CAS_REPRODUCES"  # likewise: the commit that is reproduced
RANK_VARIABLE: Final = "CAS_RANK_PID"  # set by a process of a launch, for those that it starts
CONFIG_VARIABLE: Final = "CAS_CONFIG"  # the config of runs; a user may set it too
ENVIRONMENT_VARIABLE: Final = "CAS_ENV"  # which of the config's environments; set by users alone
KEY_VARIABLE: Final = "CAS_RUN_KEY"  # what runs of one job or launch have in common; likewise
