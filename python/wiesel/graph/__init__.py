"""The graph: single static assignment, static extents (but the batch), built by tracing, rewritten by passes."""
