"""What a run tells people: the live progress, the closing summary, and the page `report.html`.

Everything here reads the files of the run folder and nothing else, so a page can be made again at any time, of any run.
"""

from ytrain.report.live import Progress, open_progress
from ytrain.report.page import write_report
from ytrain.report.summary import print_summary

__all__ = ["Progress", "open_progress", "print_summary", "write_report"]
