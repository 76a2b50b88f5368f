"""What must not be stored: secrets and personal data."""
