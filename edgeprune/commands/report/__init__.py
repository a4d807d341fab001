"""The page of a run: its pictures, and report.html itself."""
