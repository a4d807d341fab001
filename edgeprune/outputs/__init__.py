"""How errors of a network's outputs are counted, whatever they mean."""
