"""The device's journey: check, download, stage, swap, trial, verdict."""
