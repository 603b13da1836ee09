"""Public data sets to arrays: fetched, checked, split and paired. Nothing here knows torch."""
