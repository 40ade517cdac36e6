"""The notary's room: is this image, and are these weights, what somebody we trust has signed? Nothing is fetched."""
