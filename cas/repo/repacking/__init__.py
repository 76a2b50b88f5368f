"""Pieces stored anew as deltas."""
