"""Passes from graph to graph, and the plan of the memory. ``graph.verify`` runs between them."""
