"""A storm of kills over the whole stack: sweeps under fire, each compared with an undisturbed one.

plan      which kills, seeded (pure)
targets   the processes that they hit
sweeps    the configurations under fire, and the commands that a user would type
tracking  an MLflow server that can be killed too
watch     what the sweep shows meanwhile: recovery times, steps lost
fire      one sweep under fire
outcome   what happened to it
report    what is wrong with it, lines, the table, JSON
"""
