"""The towers and heads of MMV."""
