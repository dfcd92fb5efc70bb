"""The main job: crawl, skip what is known, predict, decide, write, save, report."""

from tagger.scan.apply import run_apply
from tagger.scan.normalize import run_normalize
from tagger.scan.run import ScanObserver, run_scan

__all__ = ["ScanObserver", "run_apply", "run_normalize", "run_scan"]
