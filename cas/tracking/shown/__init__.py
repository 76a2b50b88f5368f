"""What a run is shown beside numbers, stored and read back."""
