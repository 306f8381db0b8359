"""The functional engine: what a program computes, exactly and fast, without time."""
