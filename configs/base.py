"""The configuration that all others change: the default of every field of `thermo_ebm/fields.py`.

The defaults are the paper's sizes and chains for CIFAR-10 (tables 4 and 5). This file is not
trained by itself: `configs/digits.py` and the files of the other data sets change the fields that
differ. docs/configuration.md explains every field.
"""

from ml_collections import ConfigDict, FieldReference

from thermo_ebm import fields


def get_config() -> ConfigDict:
    """Returns the base configuration, unlocked, so that the file of a data set can change it."""
    nested = fields.defaults()
    # A reference of this type takes values of either type.
    nested["data"]["num_val"] = FieldReference(nested["data"]["num_val"], field_type=object)
    return ConfigDict(nested)
