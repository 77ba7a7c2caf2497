"""FLOPs: the analytic count that plans use, two independent counts that check it, and the solver.

A multiply-add is 2 FLOPs. All matrix products count, attention at its true numbers of queries and keys;
embedding look-ups, norms and softmax do not. Backward is counted, not assumed; nothing is recomputed.
"""
