"""What is kept, what goes, and by which words."""
