"""The device's disk: state, blobs, releases, locks."""
