"""The formats that byteatlas scans itself, each registered as a third party's would be."""
