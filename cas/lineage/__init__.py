"""Lineage: the graph of commits, read along its edges."""
