"""A procedural audio-visual world: coloured shapes that move and sound, with noisy captions.

Every scene is drawn from a seed. Picture, sound and captions all depend on the same attributes
(shape, colour, motion, size), so that a model can learn to tell which belong together.
"""
