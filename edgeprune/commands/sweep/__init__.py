"""``edgeprune sweep``: many compressions as one."""
