"""The forms of what is logged beside numbers: each into its content and back."""
