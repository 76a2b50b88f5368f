"""What surrounds a run: code, environment, command, hardware."""
