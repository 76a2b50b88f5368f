"""Settings of every test run."""

import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# The default deadline is a hidden assertion on time: machines are noisy.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")

# A shell starts what it runs behind itself (`make test &`) deaf to Ctrl-C, and so are its programs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_run_is_left_open() -> Iterator[None]:
    """Fail the test that leaves a run open, as the hooks of that run would change later tests."""
    yield
    ending = sys.modules.get("cas.tracking.ends.ending")
    if ending is not None and ending.runs_are_open():
        open_runs, ending._hooks.open[:] = list(ending._hooks.open), []
        ending._hooks.remove()
        pytest.fail(f"{len(open_runs)} runs are still open")
