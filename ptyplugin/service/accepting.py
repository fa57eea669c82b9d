"""Connections that cannot be accepted for want of file descriptors or memory: whoever listens waits a little, and goes on."""

from __future__ import annotations

import errno
import os
import time

from ptyplugin.service.complaints import Complaints

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: The connection waits in the system meanwhile, so that whoever asks for it again at once would be kept busy by nothing. Seconds.
PAUSE_S = 0.2


def waited_out(error: OSError, complaints: Complaints) -> bool:
    """Whether it is of this kind: then it was said, and waited for a moment."""
    if error.errno not in _EXHAUSTED:
        return False
    complaints.say(
        f"a connection cannot be accepted ({os.strerror(error.errno)}): it waits. If that lasts, raise LimitNOFILE of the systemd unit "
        "(ulimit -n), or end what holds so many files open."
    )
    time.sleep(PAUSE_S)
    return True
