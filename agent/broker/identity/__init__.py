"""Identity tokens (OpenID Connect): verified here, never handed on."""
