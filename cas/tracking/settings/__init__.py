"""What a config says."""
