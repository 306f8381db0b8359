"""FPGAs: what the accelerator takes of a part, and how fast it is there, by the tools of the open flow."""
