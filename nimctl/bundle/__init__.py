"""The packing room: an image, weights and all that proves them as one folder of plain files, and back again."""
