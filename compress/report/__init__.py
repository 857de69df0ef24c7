"""Reports: report.json and the documents made from it."""
