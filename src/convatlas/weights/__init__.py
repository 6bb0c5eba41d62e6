"""Weight files and published checkpoints, and the key tables that bring them onto our networks."""

from convatlas.weights.errors import WeightsError as WeightsError
from convatlas.weights.files import read_safetensors_metadata as read_safetensors_metadata
from convatlas.weights.files import read_weights as read_weights
from convatlas.weights.files import write_safetensors as write_safetensors
from convatlas.weights.keymap import KeyTable as KeyTable
from convatlas.weights.keymap import all_tables as all_tables
from convatlas.weights.keymap import find_table as find_table
from convatlas.weights.load import load_foreign as load_foreign
from convatlas.weights.load import load_own as load_own
from convatlas.weights.published import Published as Published
from convatlas.weights.published import all_published as all_published
from convatlas.weights.published import find_published as find_published
from convatlas.weights.published import imagenet_classes as imagenet_classes
from convatlas.weights.published import load_pretrained as load_pretrained
