alu.6
finish
