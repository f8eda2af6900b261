"""`ytrain crd`: print the CustomResourceDefinition, for `kubectl apply -f -`."""

from ytrain_api.crd import crd_yaml


def crd() -> None:
    """Print the CustomResourceDefinition of YTrainJob: ytrain crd | kubectl apply -f -"""
    print(crd_yaml(), end="")
