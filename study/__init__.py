"""From readings to tables, claims, figures and the report. Imports the library; never the reverse.

`runs` and `published` read files, and `readings` joins them into one table with a column for each
configuration field. `cells` names and groups the configurations of a data set; `tables` and `noise`
(experiments on the gradient's noise) summarise their readings; `claims` tests what the paper says
of them by `statistics`; `figures` draws them. `report` puts all of these on a page, `pages` writes
those of docs/study. `measurements` are programs that measure the library itself.
"""
