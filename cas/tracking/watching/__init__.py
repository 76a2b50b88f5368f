"""What is looked at while a run goes on, and who is told."""
