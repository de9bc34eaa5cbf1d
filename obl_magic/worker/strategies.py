"""Names by which code sets up distributed training by itself, and the way out. Imports no framework."""

from __future__ import annotations

WAY_OUT = (
    "leave it out: the function stays as it is for one process, and the options of the run distribute it"
)
TF_STRATEGIES = (
    "MirroredStrategy",
    "MultiWorkerMirroredStrategy",
    "CentralStorageStrategy",
    "ParameterServerStrategy",
    "TPUStrategy",
    "OneDeviceStrategy",
)
HOROVOD = ("DistributedOptimizer", "DistributedGradientTape", "BroadcastGlobalVariablesCallback")
