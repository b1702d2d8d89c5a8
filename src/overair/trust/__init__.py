"""Whom a device believes and what a publisher signs: TUF by python-tuf, keys and envelopes by securesystemslib.

Nothing here opens a connection or writes to a device's disk by itself: callers pass both in.
"""
