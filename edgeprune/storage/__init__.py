"""Files and folders that are whole or not there, whose they are, and reading those of others."""
