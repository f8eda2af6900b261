"""What every run measures besides its training loss: what was gained, and what was kept."""
