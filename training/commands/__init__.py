"""`python -m training …`, a verb a file: what a person says, to what the floors below do.

options     what verbs ask for in the same words      refusing   a fault in one sentence
publishing  rows in, a bundle out: what several verbs do
"""
