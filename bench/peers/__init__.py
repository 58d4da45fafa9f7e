"""What a team would take instead of molt: one file or folder a peer, each with its version, its command and how it is tuned.

`catalog.PEERS` names them all; `python -m bench peers` measures them (runner/peers.py).
"""
