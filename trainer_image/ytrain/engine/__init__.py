"""Engines: how gradients become weight updates. One interface; plain torch behind it."""
