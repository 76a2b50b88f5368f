"""One file per framework; each is imported only where its framework is in use."""
