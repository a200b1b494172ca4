"""What every test may rely on."""

import signal

# A shell that starts the tests in the background has interrupts ignored, and children inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
