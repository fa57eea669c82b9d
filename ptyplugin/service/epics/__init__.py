"""The job that runs as EPICS process variables: scalars over Channel Access and PVAccess, images over PVAccess.

They are served by a process of their own, which reads what everybody may read: whatever becomes of it is no matter of the service.
"""
