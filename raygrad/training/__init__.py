"""Networks, recipes and the training loop: the same code alone in a process and in a group.

`loop` trains, `recipes` say how, `models` finds networks by name, `study_data` brings the splits,
`trials` is one retraining on a subset. torch.distributed is allowed here, Ray is not. It may import
`raygrad.runs` and what is below it.

Read first: `loop.py`.
"""
