"""The file that survives a crash, and what it tells."""
