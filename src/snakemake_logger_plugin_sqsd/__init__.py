"""What one sees of a run: a line per finished step and, on a terminal, bars.

Snakemake finds this package by its name and takes it where a profile says `logger: sqsd`. Its own
text goes on to its log file, all of it. Dry runs and `--verbose` are left to Snakemake, but for
what is wrong with a config file.
"""

import os
import sys
import tempfile
import threading
import time
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_sqsd.config_files import told_of_config_files
from snakemake_logger_plugin_sqsd.screen import show
from snakemake_logger_plugin_sqsd.steps import Steps
from sqsd.logs import BARS

SECONDS_BETWEEN_DRAWINGS = 0.5


class LogHandler(LogHandlerBase):
    """Prints what `Steps` tells of Snakemake's records; below it, on a terminal, its bars."""

    def __post_init__(self) -> None:
        self.stream, self.steps = sys.stderr, Steps()
        self.showing, self.ended = threading.Lock(), threading.Event()
        self.live = self.writes_to_stream and self.stream.isatty()
        if self.live:
            # Where jobs, which inherit it, leave their own bars.
            self.folder = tempfile.TemporaryDirectory("-sqsd-bars", ignore_cleanup_errors=True)
            os.environ[BARS] = self.folder.name
            self.painter = threading.Thread(target=self.paint, daemon=True)
            self.painter.start()

    def emit(self, record: LogRecord) -> None:
        try:
            if self.writes_to_stream:
                self.show(record)
            elif getattr(record, "event", None) == LogEvent.ERROR:
                # Behind what Snakemake says.
                show(self.stream, told_of_config_files(record.getMessage(), sys.argv[1:]), [])
        except Exception:  # Snakemake's thread of handlers would end, and with it all lines
            self.handleError(record)

    def show(self, record: LogRecord | None = None) -> None:
        with self.showing:
            lines = [] if record is None else list(self.steps.told(record))
            live = self.live and not self.ended.is_set()
            bars = self.steps.bars(time.time(), self.folder.name) if live else []
            show(self.stream, lines, bars)

    def paint(self) -> None:
        """Draw the bars again and again: time passes while no step finishes."""
        while not self.ended.wait(SECONDS_BETWEEN_DRAWINGS):
            self.show()

    def close(self) -> None:
        """Take the bars away. Snakemake calls it after the last record, Python again at exit."""
        if self.live and not self.ended.is_set():
            self.ended.set()
            self.painter.join()
            self.show()
            del os.environ[BARS]
            self.folder.cleanup()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        settings = self.common_settings
        return not (settings.dryrun or settings.verbose or settings.debug_dag)

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False  # Snakemake's own: of --quiet

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False
