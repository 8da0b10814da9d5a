"""What a price is made of: operations of language models by formula, of their trainings, and what GPUs make of them.

No torch and no files: trainings count with these formulas while they run (`lm.training.counters`), and worlds price
their nodes with the same ones before anything runs. That is why this room stands below `lm`.
"""
