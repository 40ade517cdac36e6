"""The registry room: references, logins, and whether a key may pull an image. No layer is moved here."""
