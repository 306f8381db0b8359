load.inp push_next
load.uop pop_prev pop_next
store.out pop_prev
finish
