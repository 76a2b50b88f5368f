"""Objects by id, over a backend: records in packs, found by an index."""
