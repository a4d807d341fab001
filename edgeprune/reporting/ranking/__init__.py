"""What ``rank`` writes and shows."""
