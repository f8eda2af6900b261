"""Models: loading, the exact packed forward pass, LoRA, import, export and merge."""
