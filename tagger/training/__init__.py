"""Labelled music: read data sets, fine-tune a model on them, measure a model on them."""
