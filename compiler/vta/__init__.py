"""The VTA back end: schedules a procedure for the machine, and lowers it to its instructions."""
