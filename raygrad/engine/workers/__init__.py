"""How worker processes of an own Ray begin: as forks of a process that has loaded what they need.

`starting.py` is the driver's side, and the one to read first; `fork_server.py` is the process that
forks; `launcher.py` is what Ray's node runs in place of its own script. May import: errors, and
Ray's private parts through `ray_private`.
"""
