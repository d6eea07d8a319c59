"""Where a network can be cut, and the pieces that a cut makes.

`calling` finds how a module is called, `trace` writes its operations down, `observe` runs them, `modes`
does both in train and eval mode and compares with the module, `places` says where exits can go, `spread`
chooses, and `partition` cuts.
"""
