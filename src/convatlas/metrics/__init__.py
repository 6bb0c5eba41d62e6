"""How good a classifier is: accuracy, calibration, intervals, error analysis."""
