"""Option values: numbers with limits and units, the project file, preprocessing cards."""
