"""Graph IR: a typed, immutable dataflow graph, the ops in it, and the passes from a float model to an int8 one."""
