"""Units of work, and what runs them: processes of this machine, or a cluster of Ray."""
