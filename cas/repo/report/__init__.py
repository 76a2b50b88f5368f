"""Who holds the space, and what keeps an object."""
