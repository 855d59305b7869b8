"""Faults at named points and at random: what is killed, torn, cut, changed or full."""
