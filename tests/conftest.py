"""Settings of every test run."""

from hypothesis import settings

# The default deadline is a hidden assertion on time: machines are noisy.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
