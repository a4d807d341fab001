"""The ``demo`` command: the bundled network and its images, put in a folder."""
