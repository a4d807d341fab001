"""What runs take from each other."""
