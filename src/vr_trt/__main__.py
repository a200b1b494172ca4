"""The command `vr-trt`, and `python -m vr_trt`."""

# What `signal` wraps: that one takes 5 ms to load, in which Ctrl-C would show a traceback.
import _signal  # type: ignore[import-not-found]


def main() -> None:
    """Run the command line. Until it is loaded, Ctrl-C ends it without a word."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from vr_trt.cli import main as run

    run()


if __name__ == "__main__":
    main()
