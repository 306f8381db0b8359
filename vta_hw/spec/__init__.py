"""One description of the machine: configuration, instruction set, registers and the program file."""
