"""One short program per job."""

import signal
import sys

_is_program = sys.argv[0] in ("-m", "-c") or sys.argv[0].replace("\\", "/").rpartition("/")[2].startswith("v2d-")
if _is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # until a program hears signals itself, Ctrl-C ends it as it ends any other: without the stack of Python's imports
    signal.signal(signal.SIGINT, signal.SIG_DFL)
