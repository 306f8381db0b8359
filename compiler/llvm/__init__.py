"""CPU back end: tensor IR to LLVM IR text, optimised and run in this process."""
