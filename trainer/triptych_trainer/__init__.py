"""Trainer of Triptych: MMV towers with FAC heads, trained from raw video, exported as a bundle."""
