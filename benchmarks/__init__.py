"""Workloads, peers and one table: `make bench`, explained in docs/performance.md."""
