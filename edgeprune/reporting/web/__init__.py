"""report.html: all of a run on one self-contained page."""
