"""A beamline that is not there: sample, optics, detector, motors."""

if __name__ != "ptyplugin.sim":
    raise ImportError(f"import this folder as ptyplugin.sim, not as {__name__}")
