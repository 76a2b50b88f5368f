"""How runs end, are found lost, and go on."""
