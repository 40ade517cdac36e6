"""A registry login, as every part of this room and `Engine.pull` take it."""

import base64
from dataclasses import dataclass

from nimctl.core.secret import Secret

# The user name under which credential stores keep an OAuth2 refresh token instead of a password.
TOKEN_USER = "<token>"  # noqa: S105 (a name, not a token)


@dataclass(frozen=True)
class Login:
    """User and key (for TOKEN_USER: refresh token) of a registry. Prints without the key."""

    username: str
    password: Secret

    @property
    def encoded(self) -> Secret:
        """`user:key` in base64, as HTTP's basic authentication and docker's file write it."""
        pair = f"{self.username}:{self.password.reveal()}"
        return Secret(base64.b64encode(pair.encode()).decode())
