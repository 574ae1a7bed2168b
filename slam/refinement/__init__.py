"""Consistent depth of every frame of a video whose poses are known: measured, made to agree, accepted or not."""
