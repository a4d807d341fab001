"""Options and the file of a sweep."""
