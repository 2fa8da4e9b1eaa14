"""The zoo: models by name, with weights.

```python
import zoo

print(zoo.list_models(task="detection"))
model = zoo.get("retinanet_resnet50_fpn", num_classes=8)  # published weights, new head
```
"""

from zoo.errors import DownloadError, UnsafePickleError, WeightsError
from zoo.loading import DEFAULT, get
from zoo.native import load_weights, save_weights
from zoo.registry import Entry, Weights, info, list_models, register

__all__ = [
    "DEFAULT",
    "DownloadError",
    "Entry",
    "UnsafePickleError",
    "Weights",
    "WeightsError",
    "get",
    "info",
    "list_models",
    "load_weights",
    "register",
    "save_weights",
]
