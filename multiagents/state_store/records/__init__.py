"""The values that pass between the engine and a store, whatever the store is. Begin with `commit.Commit`.

`attempt` and `commit` are what is written, `snapshot` and the claim what is read. Their encoded forms are what Redis
keeps: a change here is a change of the stored layout.
"""
