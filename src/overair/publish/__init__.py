"""The publisher's journey: files become blobs, a release and a manifest in a folder that any static host can serve."""
