"""A sweep in words, tables and on its page."""
