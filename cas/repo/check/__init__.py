"""fsck, repair, and copies that are torn."""
