alu.add uop_end=65 iter_out=1 iter_in=1 use_imm
finish
