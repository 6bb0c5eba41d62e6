"""The studies and their claims, for lists; each study's own file says more. Needs no torch."""

CLAIMS = {
    "degradation": "Plain networks get worse with depth, in training error too; residual networks do not.",
    "identity": "The deeper the residual network, the more it gains from activation before the convolutions.",
    "shortcuts": "The identity cures degradation; projection shortcuts gain little over free ones.",
    "lesion": "A trained residual network survives the loss of any one block, a VGG that of no layer.",
    "small-filters": "Three 3x3 convolutions see as far as one 7x7, with 45 % fewer weights, and do better.",
    "bottleneck": "1x1 bottlenecks make an inception module several times cheaper at no loss of accuracy.",
    "auxiliary-heads": "Auxiliary classifiers bring more gradient to the early layers of a deep net.",
    "depthwise": "A depthwise-separable convolution costs 1/N + 1/k^2 of a full one; time falls less.",
    "multipliers": "MobileNet's multipliers of width and resolution cut cost as their squares.",
    "wide-or-deep": "At equal parameters a wide residual net is as accurate as a thin deep one, and faster.",
    "fractal": "Drop-path makes each column of a fractal network a network of its own: answers at any time.",
    "dense": "A densely connected network needs fewer parameters than a residual one of equal accuracy.",
    "squeeze-excite": "Squeeze-and-excitation lowers the error at almost no cost in computation.",
    "cardinality": "At equal cost, more groups in a residual block give higher accuracy than more width.",
    "relu": "A network of ReLUs reaches a given training error in a fraction of the epochs that tanh needs.",
    "regularisation": "Dropout, augmentation and weight decay each lower the test error, and most together.",
    "test-time": "Averaging over crops, scales and networks lowers the error of networks already trained.",
    "initialisation": "Without batch normalisation, only He's initialisation carries signals through depth.",
    "loss": "Softmax and multi-class hinge losses train networks of about the same accuracy.",
    "pooling": "Max pooling trains a better LeNet-5 than average pooling does.",
    "receptive-field": "The effective receptive field is below the theoretical, and training widens it.",
    "atlas-chart": "Accuracy per parameter differs tenfold between networks; MACs do not tell the latency.",
}
"""Name of each study, in the order of the course, and its claim in a sentence."""
