"""Reversible transforms of bytes, and the rules for cutting them."""
