"""`make sandbox`: Modelport over four emulated platforms, for everybody without an account on a real one.

    python -m tests.emulators.sandbox     the emulators, each on a port of loopback, and their accounts
    └── modelport serve                   the gateway; one that is killed is started again

What exists on the accounts is kept in the data directory beside the gateway's own data, so that the
next start finds both as they were. Emulators check credentials that everybody can read, and their
desks ask for none: they are for loopback only.
"""
