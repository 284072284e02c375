"""The engine below both façades: open stores, their modes, change log, codec and access rights."""
