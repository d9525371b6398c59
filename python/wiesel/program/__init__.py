"""Programs: where parameters lie, how steps are written down, the container file, and the road from a graph to all that."""
