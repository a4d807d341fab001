"""Models side by side and the gate, as tables, Markdown, HTML, JUnit XML and annotations."""
