"""The studies and their claims, for lists; each study's own file says more. Needs no torch."""

CLAIMS = {
    "degradation": "Plain networks get worse with depth, in training error too; residual networks do not.",
    "depthwise": "A depthwise-separable convolution costs 1/N + 1/k^2 of a full one; time falls less.",
    "initialisation": "Without batch normalisation, only He's initialisation carries signals through depth.",
}
"""Name of each study, in the order of the course, and its claim in a sentence."""
