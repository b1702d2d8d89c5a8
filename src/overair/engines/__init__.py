"""Runtimes that load a bundle and answer a prompt: llama.cpp by three of its front ends."""
