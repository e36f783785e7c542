"""Networks, forests, training and prediction."""

import os

# Threads that wait for each other by sleeping, not by spinning: with other work on the cores, two threads trained a
# volume in 77 s instead of 175 s, for 31 s of processor time instead of 86 s. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
