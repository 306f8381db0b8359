"""Static post-training quantisation: calibrate, choose scales, choose integers, prove that nothing overflows."""
