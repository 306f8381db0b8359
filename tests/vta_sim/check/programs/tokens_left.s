load.uop push_prev
load.inp
load.inp pop_next push_next
load.uop pop_prev push_next
finish
