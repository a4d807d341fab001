"""What others wrote about images: labels in a CSV file, and the boxes of objects in COCO or YOLO files."""
