"""What the image does beside serving, and its help."""
