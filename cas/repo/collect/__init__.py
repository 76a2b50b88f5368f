"""Giving back space: plan, show, execute."""
