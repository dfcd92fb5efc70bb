"""The main job: crawl, skip what is known, listen, decide, write, remember, report."""

from tagger.scan.run import Watcher, run_scan

__all__ = ["Watcher", "run_scan"]
