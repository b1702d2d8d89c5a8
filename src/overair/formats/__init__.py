"""Bytes to values and back. No I/O of their own: they take bytes, buffers or file objects."""
