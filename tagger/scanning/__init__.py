"""The main job: crawl, skip what is known, predict, decide, write, save, report."""

from tagger.scanning.apply import run_apply
from tagger.scanning.normalize import run_normalize
from tagger.scanning.run import ScanObserver, run_scan

__all__ = ["ScanObserver", "run_apply", "run_normalize", "run_scan"]
