"""The studies and their claims, for lists; each study's own file says more. Needs no torch."""

CLAIMS = {
    "degradation": "Plain networks get worse with depth, in training error too; residual networks do not.",
    "identity": "Pre-activation makes deep residual networks learn better, the more so the deeper they are.",
    "shortcuts": "Projections on the shortcuts add little to identities, next to what any shortcut gains.",
    "lesion": "A residual network survives the loss of a block; a plain one does not that of a layer.",
    "small-filters": "Three 3x3 layers see as much as one 7x7 with 45 % fewer weights, and err no more.",
    "bottleneck": "1x1 bottlenecks make an inception module 2 to 3 times cheaper, and no less accurate.",
    "auxiliary-heads": "Auxiliary classifiers bring gradient to early layers, and a plain network errs less.",
    "depthwise": "A depthwise-separable convolution costs 1/N + 1/k^2 of a full one; time falls less.",
    "multipliers": "MobileNet's cost falls roughly as alpha^2 rho^2, and its accuracy with both.",
    "compound-scaling": "At equal cost or time, networks grown in depth, width and px err less than in one.",
    "wide-or-deep": "At equal parameters, a wide ResNet errs less than a thin deep one, and answers sooner.",
    "fractal": "With drop-path a fractal's columns work alone: answers come early, or late and better.",
    "dense": "A DenseNet does as well as a ResNet of thrice its parameters, and reads maps of far before.",
    "squeeze-excite": "Squeeze-and-excitation gates lower the error, at next to no arithmetic.",
    "cardinality": "At equal cost, a residual network with more groups of channels errs less.",
    "relu": "Started as in 2012, ReLUs reach a training error in fewer epochs than tanh units.",
    "regularisation": "Dropout and augmentation curb AlexNet's overfitting; with LRN and decay it errs less.",
    "test-time": "Averages over crops, over scales and over networks each lower the test error.",
    "initialisation": "Without batch normalisation, only He's initialisation carries signals through depth.",
    "loss": "Softmax and hinge err alike; only the hinge lets go of images beyond its margin.",
    "pooling": "An activation before or behind a maximum is the same; a maximum errs less than a mean.",
    "receptive-field": "Of what a network can see it uses little at first, and more after training.",
    "atlas-chart": "Multiply-adds tell time, accuracy is a hyperbola in it, VGG and AlexNet waste weights.",
}
"""Name of each study, in the order of the course, and its claim in a sentence."""

FOLDERS = {
    "residual": ("degradation", "identity", "shortcuts", "lesion", "wide-or-deep", "fractal", "dense"),
    "modules": (
        "small-filters",
        "bottleneck",
        "auxiliary-heads",
        "depthwise",
        "multipliers",
        "squeeze-excite",
        "cardinality",
    ),
    "learning": ("relu", "regularisation", "initialisation", "loss", "pooling", "test-time"),
    "networks": ("atlas-chart", "receptive-field", "compound-scaling"),
}
"""Folder of each study's file."""
