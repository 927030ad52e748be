"""Times on the GPU in use, for the scripts that compare kernels."""

import statistics

import torch

_RUNS = 20


def milliseconds(run, before=lambda: None):
    """The median time of run on the device. What `before` starts is not timed, and keeps the device
    busy while run is being started."""
    for _ in range(3):
        run()
    times = []
    for _ in range(_RUNS):
        before()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)
