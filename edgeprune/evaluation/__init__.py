"""Quality of a network's outputs by its task: one module a measure, chosen by ``evaluation.registry``."""
