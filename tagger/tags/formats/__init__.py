"""One module for each format that a tag comes in, as a list of items that are bytes."""
