"""How each kind of op couples channels."""
