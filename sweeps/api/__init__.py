"""What programs call, as `keras_sweeps` offers it: sweeps, their trials, data and models.

Functions raise `InputError` for what the command line answers with status 2, return frozen results,
and read what is stored; nothing is kept in memory between calls. Heavy libraries are imported when
something needs them.
"""
