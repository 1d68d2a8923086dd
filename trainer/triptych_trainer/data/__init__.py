"""Training data from real files: where clips are, how they are drawn, cut, disturbed and worded."""
