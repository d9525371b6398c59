"""Shells start background jobs with SIGINT ignored, and children inherit that: a suite run in the background could not test Ctrl-C."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
