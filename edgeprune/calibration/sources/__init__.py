"""Where images come from: folders, arrays in a file, Datasets."""
