"""Named byte strings on some medium."""
