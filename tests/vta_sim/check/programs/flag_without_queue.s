load.inp pop_prev y_size=1 x_size=1 push_next
load.uop pop_prev
finish
