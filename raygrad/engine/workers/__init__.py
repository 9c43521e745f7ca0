"""How worker processes of an own Ray begin: as forks of a process that has loaded what they need.

`starting.py` is the driver's side, and the one to read first; `fork_server.py` is the process that
forks; `launcher.py` and `no_agent.py` are what Ray's node runs in place of its own script, and of
its dashboard's agent. May import: errors, and Ray's private parts through `ray_private`.
"""
