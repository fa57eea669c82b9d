"""The daemon that takes jobs in, has them solved and publishes the results."""

from __future__ import annotations

from ptyplugin.service.daemon import Daemon
from ptyplugin.service.group import Patience
from ptyplugin.service.launchers import Inline, Launcher
from ptyplugin.service.mpiexec import Mpiexec
from ptyplugin.service.slots import Place
from ptyplugin.service.solving import Wish

__all__ = ["Daemon", "Inline", "Launcher", "Mpiexec", "Patience", "Place", "Wish"]
