"""The machine, the process and the libraries around us."""
