"""The command `vr-trt`, and `python -m vr_trt`."""

import signal


def main() -> None:
    """Run the command line. Until it is loaded, Ctrl-C ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from vr_trt.cli import main as run

    run()


if __name__ == "__main__":
    main()
