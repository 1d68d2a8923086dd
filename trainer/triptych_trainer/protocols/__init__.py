"""The paper's evaluations, each from the layout its dataset is published in."""
