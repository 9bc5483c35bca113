"""What an admin may do, through the API, the command line or the pages alike.

Each action checks the request, writes its effect and who requested it in one transaction, and sends
the jobs that follow. The worker, another process, picks them up within a second or two.
"""

from cdal.backend.actions.done import Done
from cdal.backend.actions.export import export, request_export
from cdal.backend.actions.jobs import cancel, retry
from cdal.backend.actions.project import forget, pause, rescore, resume, retrain, roll_back
from cdal.backend.actions.queue import MOST, queue_next
from cdal.backend.actions.settings import change_settings, known_settings

__all__ = [
    "MOST",
    "Done",
    "cancel",
    "change_settings",
    "export",
    "forget",
    "known_settings",
    "pause",
    "queue_next",
    "request_export",
    "rescore",
    "resume",
    "retrain",
    "retry",
    "roll_back",
]
