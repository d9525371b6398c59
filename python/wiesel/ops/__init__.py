"""Every operation of the library as a function: of arrays, computed at once, or of the symbolic tensors that flow through ``forward``."""
