"""A repository: refs and roots over a store, and one module per verb."""
