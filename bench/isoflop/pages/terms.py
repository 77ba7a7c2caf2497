"""The words an isoFLOP report uses, for a reader who meets them first here."""

TERMS = [
    ("dense", "every token passes through every block: the model that the others are held to"),
    ("MoE", "mixture of experts: in place of a feed-forward several, of which a router picks a few for each token"),
    ("MoD", "mixture of depths: a router picks the tokens that a block processes; the others skip it"),
    ("MoDE", "mixture of depths and experts: both"),
    ("isoFLOP", "runs of different sizes that spend the same FLOPs in training; larger models see fewer tokens"),
    ("nats a token", "natural-log cross-entropy of the next token; of bytes, nats a byte. Over ln 2: bits"),
    ("optimum", "the size with the least loss at a budget, by a parabola in the log of the size"),
    (
        "top-k",
        "how depth routers choose tokens in training: a text’s k largest weights, whatever comes later",
    ),
    ("causal router", "what stands in for top-k at inference and in every loss here: it sees no later token"),
    ("capacity", "share of the tokens that a routed block processes; the others skip it"),
    ("parity", "the fewest FLOPs of a forward pass that give dense’s best loss at the same training FLOPs"),
    (
        "approach 2, approach 3",
        "fits of Hoffmann et al. 2022 (arXiv 2203.15556): parabolas; a law of N and D",
    ),
    ("dense-equivalent compute", "how many times the training FLOPs dense needs for a method’s best loss"),
    ("staged, integrated", "MoDE with depth routing around MoE blocks; MoDE with a no-op among the experts"),
]
