"""Bytes from elsewhere: HTTP, downloads."""
