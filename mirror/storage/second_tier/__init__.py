"""What stands behind the disk."""
