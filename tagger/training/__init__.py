"""Labelled music: read, measured on."""
