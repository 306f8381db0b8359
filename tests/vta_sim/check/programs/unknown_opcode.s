op.7
finish
