"""Results of stages that runs share, by what decided them."""
