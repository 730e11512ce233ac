"""What has no owner is found and moved on, by a thread in every worker. Begin with `sweep.Sweep`.

`maintenance` is the thread: the sweep, the intake of foreign results, the worker's own announcements.
"""
