"""What can go wrong when a bundle is run.

* RuntimeFault: the operator must act
  + DeviceUnavailable     the device that was asked for is not there
  + GraphInvalid          ONNX Runtime refuses a graph, or its inputs and outputs are not the contract's
  + RunFailed             ONNX Runtime gave up while it ran a graph: the graph, the memory or the driver
  + GoldenMismatch        the bundle answers otherwise than when it was exported
  + GraphsDisagree        a row is answered otherwise in a batch, or by the fused graph
* NonFiniteOutput         the model gave NaN or infinity for a row
"""

from __future__ import annotations


class RuntimeFault(Exception):
    """A bundle that cannot be run here."""


class DeviceUnavailable(RuntimeFault):
    """The device that was asked for is not there; running on another would be a silent lie."""


class GraphInvalid(RuntimeFault):
    """A graph is not what the manifest says."""


class RunFailed(RuntimeFault):
    """A graph was loaded, and running it failed."""


class GoldenMismatch(RuntimeFault):
    """A golden case is answered otherwise than at export."""


class GraphsDisagree(RuntimeFault):
    """One row, two answers: by what it was asked together with, or by which graphs answered."""


class NonFiniteOutput(Exception):
    """The model's output for one row is not a number."""
