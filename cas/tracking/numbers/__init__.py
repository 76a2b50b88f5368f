"""Metrics: points, curves, sums."""
