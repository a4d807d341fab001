"""Training by distillation on the calibration images."""
