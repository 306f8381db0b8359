# Every instruction, memory type, pad, stride, loop, ALU operation and token queue, for the machine
# 2x8x4_i8w8a32 with 32 micro-ops, 16 input, 8 weight and 16 accumulator tiles.

uop                      # 0
uop dst=1 src=1 wgt=1    # 1
uop dst=2 src=2 wgt=2    # 2
uop dst=3 src=3 wgt=3    # 3
uop dst=5 src=0 wgt=4    # 4
uop dst=4 src=1          # 5
uop dst=6 src=2 wgt=3    # 6
uop dst=7 src=3 wgt=1    # 7
uop dst=9 src=9 wgt=2    # 8
uop dst=8 src=12 wgt=5   # 9
uop dst=15 src=15 wgt=7  # 10
uop dst=10 src=4 wgt=6   # 11

# Micro-ops: a flat load, then two rows inside pads on all four sides.
load.uop dram_base=0x4000 y_size=1 x_size=8 x_stride=8
load.uop sram_base=8 dram_base=0x4008 y_size=2 x_size=2 x_stride=2 y_pad_0=1 y_pad_1=2 x_pad_0=1 x_pad_1=1
# Inputs: pads on all sides, one row three times, rows that overlap, then rows of zeros only.
load.inp dram_base=0x1100 y_size=2 x_size=2 x_stride=5 y_pad_0=1 y_pad_1=1 x_pad_0=1 x_pad_1=1
load.inp sram_base=5 dram_base=0x1140 y_size=3 x_size=2
load.inp sram_base=11 dram_base=0x1121 y_size=2 x_size=2 x_stride=1
load.inp sram_base=4 y_size=0 x_size=1 x_stride=77 y_pad_0=1
# Weights: the last load also gives compute its token.
load.wgt sram_base=1 dram_base=0x900 y_size=2 x_size=1 x_stride=3 y_pad_0=1 x_pad_1=1
load.wgt dram_base=0x910 y_size=1 x_size=1 x_stride=0xffff
load.wgt sram_base=6 dram_base=0x908 y_size=1 x_size=2 push_next
# Accumulators: 32-bit with pads and rows that go far, 8-bit with a pad.
load.acc sram_base=2 dram_base=0x980 y_size=3 x_size=2 x_stride=7 y_pad_0=1 x_pad_1=1
load.acc_8bit sram_base=12 dram_base=0x2800 y_size=2 x_size=1 x_stride=3 x_pad_0=1
# A reset that needs both loops, then the sum of 24 products, with both loops and all factors.
gemm reset uop_end=1 iter_out=2 iter_in=2 dst_factor_out=14 dst_factor_in=1
gemm uop_end=4 iter_out=2 iter_in=3 dst_factor_out=4 dst_factor_in=1 src_factor_out=3 src_factor_in=2 wgt_factor_out=1 wgt_factor_in=1 pop_prev push_prev push_next
# The store may begin; meanwhile the next inputs come.
store.out dram_base=0x2a00 y_size=2 x_size=4 x_stride=9 pop_prev push_prev
load.inp dram_base=0x1160 y_size=1 x_size=16 x_stride=16 pop_next push_next
# Every operation with an immediate ...
alu.min uop_bgn=4 uop_end=8 iter_out=2 iter_in=1 dst_factor_out=8 use_imm imm=32767 pop_next
alu.max uop_bgn=4 uop_end=8 iter_out=1 iter_in=2 dst_factor_in=8 use_imm imm=-32768
alu.add uop_end=4 iter_out=2 iter_in=2 dst_factor_out=4 dst_factor_in=8 use_imm imm=-7
alu.mul uop_end=1 iter_out=1 iter_in=16 dst_factor_in=1 use_imm imm=-3
alu.shr uop_end=2 iter_out=4 iter_in=1 dst_factor_out=2 use_imm imm=3
alu.shr uop_bgn=13 uop_end=14 iter_out=1 iter_in=3 dst_factor_in=1 use_imm imm=-2
alu.shr uop_bgn=17 uop_end=18 iter_out=1 iter_in=1 use_imm imm=33
# ... and with a second accumulator, where a later micro-op reads what an earlier one wrote.
alu.min uop_end=4 iter_out=1 iter_in=2 dst_factor_in=8 src_factor_in=3
alu.max uop_bgn=4 uop_end=8 iter_out=2 iter_in=1 dst_factor_out=8 src_factor_out=5
alu.add uop_bgn=1 uop_end=2 iter_out=3 iter_in=3 dst_factor_out=3 dst_factor_in=1 src_factor_out=2 src_factor_in=2
alu.mul uop_end=4 iter_out=2 iter_in=1 dst_factor_out=10 src_factor_out=1
alu.shr uop_bgn=4 uop_end=6 iter_out=1 iter_in=1
# No trips: tokens alone.
gemm uop_end=4 iter_out=0 iter_in=5 pop_prev push_next
alu.add uop_bgn=3 uop_end=3 iter_out=1 iter_in=1 use_imm imm=1
# Rows that overlap in memory, then no rows, then no columns.
store.out sram_base=4 dram_base=0x2a40 y_size=3 x_size=4 x_stride=1 pop_prev
store.out sram_base=1 dram_base=0x2a60 y_size=0 x_size=3
store.out sram_base=9 dram_base=0x2a80 y_size=1 x_size=7 push_prev
store.uop sram_base=0xffff y_size=3 push_prev
load.inp y_size=1 y_pad_0=15 push_next
load.uop pop_prev pop_next push_prev
load.wgt x_pad_0=15 pop_next push_next
finish pop_prev pop_next
