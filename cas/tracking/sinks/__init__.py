"""Where what a run logs goes as well, while it goes on."""
